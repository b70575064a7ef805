"""Distances are known where the difference is, and the map puts like clips together."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.analysis.distances import DISTANCES, mean_distances, signature
from musicgen_lab.stats.principal_map import principal_map
from tests.support.sounds import RATE, chord, noise, sine


def distance(name, *sounds):
    return DISTANCES[name].measure(np.stack([signature(sound, RATE) for sound in sounds]))


@pytest.mark.parametrize("name", DISTANCES)
def test_a_clip_is_nowhere_from_itself_and_as_far_as_the_other_is_from_it(name):
    apart = distance(name, noise(), chord(220, 277.18), sine(440))
    assert np.diag(apart) == pytest.approx(0)
    assert apart == pytest.approx(apart.T)
    assert apart[0, 1] > 0


def test_a_tenth_is_20_db_away_in_level_and_nowhere_in_colour_and_notes():
    loud, soft = noise(), 0.1 * noise()
    assert distance("log_spectral_db", loud, soft)[0, 1] == pytest.approx(20, abs=0.01)
    assert distance("mel_cepstral_db", loud, soft)[0, 1] == pytest.approx(0, abs=0.01)
    assert distance("chroma", loud, soft)[0, 1] == pytest.approx(0, abs=1e-6)


def test_when_things_happen_does_not_count():
    first, second = noise(seed=1), sine(440)
    either = [np.concatenate(pair, axis=1) for pair in ([first, second], [second, first])]
    assert distance("log_spectral_db", *either)[0, 1] < 0.5
    assert distance("log_spectral_db", first, second)[0, 1] > 20


def test_chroma_counts_the_notes_that_are_not_shared():
    c_major, a_minor = chord(261.63, 329.63, 392.0), chord(220.0, 261.63, 329.63)
    assert distance("chroma", c_major, a_minor)[0, 1] == pytest.approx(1 / 3, abs=0.02)
    assert distance("chroma", c_major, 0.5 * c_major[:, ::-1])[0, 1] == pytest.approx(0, abs=0.01)
    assert distance("chroma", sine(261.63), sine(466.16))[0, 1] == pytest.approx(1, abs=0.02)


def test_filtered_noise_is_of_another_colour():
    smoothed = np.apply_along_axis(np.convolve, 1, noise(), np.ones(16) / 16, "same")
    apart = distance("mel_cepstral_db", noise(seed=1), noise(seed=2), smoothed)
    assert apart[0, 2] > 10 * apart[0, 1]


@pytest.mark.parametrize(
    "sound", [np.zeros((1, RATE)), np.zeros((1, 0)), np.full((1, RATE), np.nan)]
)
def test_what_cannot_be_heard_is_at_no_distance(sound):
    assert np.isnan(signature(sound, RATE)).all()
    apart = distance("log_spectral_db", sound, noise())
    assert np.isnan(apart[[0, 0, 1], [0, 1, 0]]).all()  # of itself either
    assert apart[1, 1] == 0


def test_groups_are_compared_by_their_pairs_and_with_themselves_without_identity():
    apart = np.array([[0, 2, 5], [2, 0, 7], [5, 7, 0]], float)
    between = mean_distances(apart, [0, 0, 1])
    assert between[0, 0] == 2
    assert between[0, 1] == between[1, 0] == 6
    assert np.isnan(between[1, 1])  # a single clip has no diversity
    apart[0] = apart[:, 0] = np.nan  # a silent clip
    assert mean_distances(apart, [0, 0, 1])[0, 1] == 7


def test_the_map_finds_the_line_along_which_features_vary_together():
    along = np.random.default_rng(0).normal(size=200)
    values = np.stack([along, 3 * along + 5, -along, np.ones(200)], axis=1)
    values[:, 1] += 1e-3 * np.random.default_rng(1).normal(size=200)
    found = principal_map(values)
    assert found.used == [0, 1, 2]  # the last is constant
    assert found.explained[0] == pytest.approx(1, abs=1e-4)
    assert abs(np.corrcoef(found.coordinates[:, 0], along)[0, 1]) > 0.9999
    assert np.abs(found.loadings[0]) == pytest.approx(1 / np.sqrt(3), abs=1e-3)


def test_units_do_not_count_on_the_map():
    values = np.random.default_rng(0).normal(size=(50, 4))
    there = principal_map(values)
    assert principal_map(values * [1, 1000, 0.01, 5] + 7).coordinates == pytest.approx(
        there.coordinates
    )
    assert there.explained.sum() < 1


def test_clips_with_unknown_values_are_on_the_map_and_silent_ones_are_not():
    values = np.random.default_rng(0).normal(size=(20, 4))
    values[3, 1] = np.nan
    values[4] = np.nan
    values[5:12, 2] = np.nan  # mostly unknown: not on the map
    found = principal_map(values)
    assert found.used == [0, 1, 3]
    assert np.isfinite(found.coordinates[3]).all()
    assert np.isnan(found.coordinates[4]).all()


def test_a_map_of_one_feature_is_a_line_and_one_of_nothing_is_refused():
    line = principal_map(np.arange(5.0)[:, np.newaxis])
    assert line.explained == pytest.approx([1, 0])
    assert line.coordinates[:, 1] == pytest.approx(0)
    assert np.all(np.diff(line.coordinates[:, 0]) > 0)
    with pytest.raises(ValueError, match="at least 3 clips that sound, got 2"):
        principal_map(np.ones((2, 4)))
    with pytest.raises(ValueError, match="no feature differs"):
        principal_map(np.ones((5, 4)))
