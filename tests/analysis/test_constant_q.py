"""A note is at its semitone and nowhere else; a beat is at its tempo."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.analysis.constant_q import PITCH_CLASSES, chroma_db, constant_q_db
from musicgen_lab.analysis.rhythm import tempogram
from musicgen_lab.analysis.spectrogram import FLOOR_DB
from tests.support.sounds import RATE, chord, clicks, noise, sine


def middle(level_db):
    return level_db[:, level_db.shape[1] // 2]


@pytest.mark.parametrize("rate", [8_000, 32_000, 44_100])
@pytest.mark.parametrize("midi", [36, 48, 69, 81, 93])
def test_a_full_scale_note_has_minus_3_db_at_its_semitone_and_its_neighbours_are_far_below(
    midi, rate
):
    shown = constant_q_db(sine(440 * 2 ** ((midi - 69) / 12), rate=rate), rate)
    levels = middle(shown.level_db)
    at = midi - 36
    assert shown.frequencies_hz[at] == pytest.approx(440 * 2 ** ((midi - 69) / 12))
    assert levels[at] == pytest.approx(-3.01, abs=0.1)
    assert np.delete(levels, at).max() < -30


def test_a_tenth_of_the_amplitude_is_20_db_less_and_silence_is_the_floor():
    loud, soft = (constant_q_db(gain * noise(), RATE).level_db for gain in (1.0, 0.1))
    assert soft == pytest.approx(np.maximum(loud - 20, FLOOR_DB), abs=0.01)
    assert np.all(constant_q_db(np.zeros((1, RATE)), RATE).level_db == FLOOR_DB)


def test_a_note_is_at_its_time():
    late = sine(440, duration_s=2)
    late[:, :RATE] = 0
    shown = constant_q_db(late, RATE)
    a4 = shown.level_db[69 - 36]
    assert shown.times_s[-1] == pytest.approx(2, abs=0.02)
    # Half of the window over the edge is half of the amplitude.
    assert shown.times_s[np.argmax(a4 > -3.01 - 6.03)] == pytest.approx(1, abs=0.02)


def test_channels_that_would_cancel_in_a_mix_are_both_seen():
    one = noise()
    both = constant_q_db(np.concatenate([one, -one]), RATE).level_db
    assert both == pytest.approx(constant_q_db(one, RATE).level_db, abs=1e-3)


def test_a_chord_is_at_its_pitch_classes_in_every_octave():
    shown = chroma_db(chord(130.81, 659.26, 1567.98), RATE)  # C3, E5, G6
    loudest = np.argsort(middle(shown.level_db))[-3:]
    assert {PITCH_CLASSES[pitch_class] for pitch_class in loudest} == {"C", "E", "G"}
    assert middle(shown.level_db)[loudest] == pytest.approx(20 * np.log10(0.2) - 3.01, abs=0.2)


@pytest.mark.parametrize("per_second", [1.5, 2, 3])
def test_a_steady_beat_is_at_its_tempo_and_at_multiples_of_its_period(per_second):
    shown = tempogram(clicks(per_second, duration_s=8)[0], RATE)
    strength = middle(shown.strength)
    by_hz = dict(zip(np.round(shown.frequencies_hz, 2), strength, strict=True))
    at = np.argmin(np.abs(shown.frequencies_hz - per_second))
    assert strength[at] > 0.5
    assert strength[np.argmin(np.abs(shown.frequencies_hz - per_second * 2 / 3))] < 0.1
    assert shown.strength.min() >= 0
    assert shown.strength.max() <= 1
    assert min(by_hz) == pytest.approx(0.5)
    assert max(by_hz) == pytest.approx(5)


@pytest.mark.parametrize("sound", [np.zeros((1, RATE), np.float32), sine(440), noise()])
def test_what_has_no_beat_shows_none(sound):
    assert tempogram(sound, RATE).strength[:, ::4].max() < 0.3


def test_samples_of_another_shape_and_rates_too_low_are_refused():
    with pytest.raises(ValueError, match=r"samples must be of shape \(channels, n\)"):
        constant_q_db(np.zeros(100), RATE)
    with pytest.raises(ValueError, match="sample_rate must be at least 146 Hz for C2, got 100"):
        constant_q_db(np.zeros((1, 100)), 100)
