"""The distance to a reference is 0 for its own kind of music, and larger for another."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from scipy.linalg import sqrtm

from musicgen_lab import InvalidRequest, Results
from musicgen_lab.stats.reference_distance import ReferenceSet
from tests.support.report_runs import make_run
from tests.support.sounds import RATE, noise
from tests.support.tiny_clap import make_clap


def cloud(centre, clips, seed, dimensions=8):
    return centre + np.random.default_rng(seed).normal(size=(clips, dimensions))


def test_two_sets_of_one_kind_are_at_0_on_average_even_if_one_is_small():
    reference = ReferenceSet.of(cloud(0, 200, seed=0))
    distances = [reference.kernel_distance(cloud(0, 4, seed=seed)) for seed in range(1, 201)]
    assert np.mean(distances) == pytest.approx(0, abs=3 * np.std(distances) / np.sqrt(200))


def test_the_farther_a_set_is_the_larger_is_its_distance_up_to_2():
    reference = ReferenceSet.of(cloud(0, 200, seed=0))
    near, far, farther = (reference.kernel_distance(cloud(c, 50, seed=1)) for c in (0.5, 2, 100))
    assert near < far < farther <= 2


def test_it_is_that_of_the_definition():
    first, second = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    between = (np.exp([0, -4 / 8, -1 / 8, -1 / 8])).mean()  # the width is 2
    assert ReferenceSet.of(second).kernel_distance(first) == pytest.approx(
        np.exp(-1 / 8) + np.exp(-4 / 8) - 2 * between
    )


def test_one_clip_has_no_distance():
    reference = ReferenceSet.of(np.eye(3))
    assert np.isnan(reference.kernel_distance(np.zeros((1, 3))))
    assert np.isnan(reference.frechet_distance(np.zeros((1, 3))))


def test_the_frechet_distance_of_normal_clouds_is_that_of_their_means_and_spreads():
    reference = ReferenceSet.of(cloud(0, 4000, seed=0, dimensions=4))
    clips = 1 + 3 * cloud(0, 4000, seed=1, dimensions=4)
    assert reference.frechet_distance(clips) == pytest.approx(4 * 1**2 + 4 * (3 - 1) ** 2, rel=0.05)


def test_the_frechet_distance_is_that_of_the_definition():
    a, b = cloud(0, 30, seed=0), cloud(1, 40, seed=1) @ np.diag(np.arange(1, 9))
    first, second = np.cov(a.T), np.cov(b.T)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    assert ReferenceSet.of(b).frechet_distance(a) == pytest.approx(expected)


def test_the_frechet_distance_of_few_clips_is_too_large_as_its_description_says():
    reference = ReferenceSet.of(cloud(0, 200, seed=0))
    few, many = (reference.frechet_distance(cloud(0, n, seed=1)) for n in (4, 2000))
    assert many < 0.5 < 2 < few


def test_every_cell_is_compared_and_the_run_folder_keeps_the_embeddings(tmp_path):
    source = make_clap(tmp_path / "clap")
    run = make_run(tmp_path / "run", silent=[0], failed=[1], temperature=[0.5, 1.5], seed=[0, 1, 2])
    (tmp_path / "reference").mkdir()
    for number in range(10):
        soundfile.write(tmp_path / f"reference/{number}.wav", noise(seed=number).T, RATE)
    distances = Results.open(run).reference_distance(tmp_path / "reference", source)
    assert list(distances.columns) == ["temperature", "n", "distance", "frechet_distance"]
    assert list(distances["n"]) == [1, 3]
    assert list(np.isfinite(distances["distance"])) == [False, True]
    assert (run / "clap_embeddings.json").exists()


def test_a_folder_of_too_few_sounds_is_refused(tmp_path):
    run = make_run(tmp_path / "run", seed=[0, 1])
    with pytest.raises(InvalidRequest, match="has 0 sound files; a reference needs at least 10"):
        Results.open(run).reference_distance(tmp_path / "nothing")
