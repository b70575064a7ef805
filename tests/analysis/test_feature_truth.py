"""Onsets, tempo, key and repetition are right on pieces where they are known."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from musicgen_lab.analysis.features import FEATURES, measure
from musicgen_lab.analysis.rhythm import onset_times_s
from musicgen_lab.analysis.sound import Sound
from scripts.feature_truth import (
    FIRST_FRAME_S,
    PAGE,
    SAMPLE_RATE,
    click_pieces,
    drum_pieces,
    feature_sections,
    is_tempo,
    onset_score,
    rendered_pieces,
    repeating_pieces,
    steady_sounds,
)


@pytest.fixture(scope="module")
def pieces():
    return list(rendered_pieces(27))


@pytest.fixture(scope="module")
def measured(pieces):
    return [measure(piece.samples[np.newaxis], SAMPLE_RATE) for piece in pieces]


@pytest.fixture(scope="module")
def steady():
    return {
        name: measure(samples[np.newaxis], SAMPLE_RATE) for name, samples in steady_sounds().items()
    }


def test_onsets_of_all_instruments_are_found_at_their_times(pieces):
    scores = [
        onset_score(onset_times_s(Sound(piece.samples[np.newaxis], SAMPLE_RATE)), piece.onsets_s)
        for piece in pieces
    ]
    f, precision, recall = np.mean(scores, axis=0)
    assert f >= 0.9
    assert min(precision, recall) >= 0.9


def test_the_onset_rate_follows_the_notes_of_the_score(pieces, measured):
    known = [np.sum(piece.onsets_s > FIRST_FRAME_S) for piece in pieces]
    rates = [values["onset_rate_hz"] for values in measured]
    assert np.corrcoef(known, rates)[0, 1] >= 0.95


def test_noise_pads_and_fades_have_no_onsets_and_no_repetition(steady):
    assert np.mean([values["onset_rate_hz"] for values in steady.values()]) <= 0.1
    assert max(values["self_similarity"] for values in steady.values()) < 0.1


def test_noise_has_no_key(steady):
    named = {name: values["key_estimate"] for name, values in steady.items() if "noise" in name}
    assert set(named.values()) == {None}


def test_the_tempo_of_most_pieces_is_right_and_of_nearly_all_it_or_the_alternative(
    pieces, measured
):
    beats = list(chain(drum_pieces((90, 120, 150)), click_pieces((60, 120, 180))))
    values = measured + [measure(one.samples[np.newaxis], SAMPLE_RATE) for one in beats]
    known_bpm = [piece.tempo_bpm for piece in [*pieces, *beats]]
    named = [[one["tempo_bpm"], one["tempo_alternative_bpm"]] for one in values]
    right = [is_tempo(bpm, known) for (bpm, _), known in zip(named, known_bpm, strict=True)]
    either = [
        any(is_tempo(bpm, known) for bpm in both)
        for both, known in zip(named, known_bpm, strict=True)
    ]
    assert np.mean(right) >= 0.65
    assert np.mean(either) >= 0.85


def test_the_key_of_most_pieces_is_right(pieces, measured):
    right = [
        values["key_estimate"] == piece.key for piece, values in zip(pieces, measured, strict=True)
    ]
    assert np.mean(right) >= 0.75


def test_what_comes_again_is_told_from_what_does_not():
    loop, in_turn, never = (
        measure(samples[np.newaxis], SAMPLE_RATE)["self_similarity"]
        for samples in repeating_pieces().values()
    )
    assert min(loop, in_turn) > 0.9
    assert never < 0.5


def test_the_page_of_features_says_what_their_docstrings_say():
    assert feature_sections() in PAGE.read_text(encoding="utf-8"), "run scripts/feature_truth.py"
    assert all(f"`{name}`" in feature_sections() for name in FEATURES)
