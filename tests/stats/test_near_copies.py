"""Seeds that give the same music are found, and seeds that give other music are not."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab import InvalidRequest, Results
from musicgen_lab.analysis.spectrogram import mel_spectrogram_db
from musicgen_lab.stats.near_copies import HOP_S, near_copies, take_similarity
from tests.support.report_runs import make_run
from tests.support.sounds import RATE, noise, notes

MELODY = [60, 67, 64, 71, 62, 69, 65, 72]


def similarity(first, second):
    return take_similarity(*(mel_spectrogram_db(one, RATE, hop_s=HOP_S) for one in (first, second)))


def test_the_same_music_softer_later_and_in_other_noise_is_a_near_copy():
    played = notes(MELODY * 2)
    later = np.roll(0.3 * played, round(0.2 * RATE), axis=1)
    takes = [
        one + noise(level=1e-3, duration_s=4, seed=seed) for seed, one in enumerate((played, later))
    ]
    assert similarity(*takes) > 0.9


def test_other_notes_at_the_same_tempo_are_not():
    assert similarity(notes(MELODY * 2), notes([50, 54, 57, 62, 55, 59, 52, 61] * 2)) < 0.7


def test_pairs_of_one_cell_are_listed_and_pairs_of_different_cells_are_not(tmp_path):
    # The pitch of these clips follows the temperature and the seed, their tempo cfg_coef.
    run = make_run(tmp_path / "run", silent=[0], temperature=[0.5, 1.5], seed=[0, 1, 2])
    pairs = near_copies(Results.open(run).table, 0.01)
    assert list(pairs.columns) == [
        "temperature", "seed_a", "seed_b", "key_a", "key_b", "similarity",
    ]  # fmt: skip
    seeds = set(zip(pairs["temperature"], pairs["seed_a"], pairs["seed_b"], strict=True))
    assert seeds == {(0.5, 1, 2), (1.5, 0, 1), (1.5, 0, 2), (1.5, 1, 2)}
    assert list(pairs["similarity"]) == sorted(pairs["similarity"], reverse=True)


def test_a_similarity_out_of_its_range_is_refused(tmp_path):
    run = make_run(tmp_path / "run", seed=[0, 1])
    with pytest.raises(InvalidRequest, match="at_least must be above 0 and at most 1, got 90"):
        Results.open(run).near_copies(90)
