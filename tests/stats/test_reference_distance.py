"""The distance to a reference is 0 for its own kind of music, and larger for another."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from musicgen_lab import InvalidRequest, Results
from musicgen_lab.stats.reference_distance import kernel_distance
from tests.support.report_runs import make_run
from tests.support.sounds import RATE, noise
from tests.support.tiny_clap import make_clap


def cloud(centre, clips, seed, dimensions=8):
    return centre + np.random.default_rng(seed).normal(size=(clips, dimensions))


def test_two_sets_of_one_kind_are_at_0_on_average_even_if_one_is_small():
    reference = cloud(0, 200, seed=0)
    distances = [kernel_distance(cloud(0, 4, seed=seed), reference) for seed in range(1, 201)]
    assert np.mean(distances) == pytest.approx(0, abs=3 * np.std(distances) / np.sqrt(200))


def test_the_farther_a_set_is_the_larger_is_its_distance_up_to_2():
    reference = cloud(0, 200, seed=0)
    near, far, farther = (kernel_distance(cloud(c, 50, seed=1), reference) for c in (0.5, 2, 100))
    assert near < far < farther <= 2


def test_it_is_that_of_the_definition():
    first, second = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    between = (np.exp([0, -4 / 8, -1 / 8, -1 / 8])).mean()  # the width is 2
    assert kernel_distance(first, second) == pytest.approx(
        np.exp(-1 / 8) + np.exp(-4 / 8) - 2 * between
    )


def test_one_clip_has_no_distance():
    assert np.isnan(kernel_distance(np.zeros((1, 3)), np.eye(3)))


def test_every_cell_is_compared_and_the_run_folder_keeps_the_embeddings(tmp_path):
    source = make_clap(tmp_path / "clap")
    run = make_run(tmp_path / "run", silent=[0], failed=[1], temperature=[0.5, 1.5], seed=[0, 1, 2])
    (tmp_path / "reference").mkdir()
    for number in range(10):
        soundfile.write(tmp_path / f"reference/{number}.wav", noise(seed=number).T, RATE)
    distances = Results.open(run).reference_distance(tmp_path / "reference", source)
    assert list(distances.columns) == ["temperature", "n", "distance"]
    assert list(distances["n"]) == [1, 3]
    assert list(np.isfinite(distances["distance"])) == [False, True]
    assert (run / "clap_embeddings.json").exists()


def test_a_folder_of_too_few_sounds_is_refused(tmp_path):
    run = make_run(tmp_path / "run", seed=[0, 1])
    with pytest.raises(InvalidRequest, match="has 0 sound files; a reference needs at least 10"):
        Results.open(run).reference_distance(tmp_path / "nothing")
