"""Every feature is right on a signal whose answer is known, and silent where it cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musicgen_lab.analysis.features import FEATURES, NUMBERS, chosen_features, measure
from musicgen_lab.analysis.rhythm import onset_times_s
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.errors import InvalidRequest
from tests.support.sounds import RATE, chord, clicks, noise, notes, sine, times

RATES = [8_000, 16_000, 32_000, 44_100, 48_000]


@pytest.mark.parametrize("rate", RATES)
def test_every_feature_of_a_sine_has_its_known_value(rate):
    measured = measure(sine(1000, amplitude=0.5, rate=rate), rate)
    assert list(measured) == list(FEATURES)
    assert measured["rms_dbfs"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)
    assert measured["peak_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=0.1)
    assert measured["silence_ratio"] == 0
    assert measured["is_silent"] is False
    assert measured["spectral_centroid_hz"] == pytest.approx(1000, rel=0.01)
    assert measured["spectral_bandwidth_hz"] < 120
    assert measured["spectral_rolloff_hz"] == pytest.approx(1000, abs=40)
    assert measured["spectral_flatness_db"] < -60
    assert measured["zero_crossing_rate_hz"] == pytest.approx(2000, rel=0.01)
    assert measured["harmonic_ratio"] > 0.99
    assert measured["onset_rate_hz"] == 0  # it sounds from the start and never begins anew
    assert measured["beat_strength"] == 0
    assert math.isnan(measured["tempo_bpm"])
    assert measured["level_change_db"] == pytest.approx(0, abs=0.01)
    assert measured["timbre_change_db"] < 0.5
    assert measured["silent_end_s"] == 0
    assert math.isnan(measured["self_similarity"])  # for want of two seconds of whole frames


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("per_second", [1, 4, 10])
def test_clicks_are_counted_at_their_rate_and_their_times(rate, per_second):
    samples, at_s = clicks(per_second, rate=rate)
    at_s = at_s[at_s > 0.064]  # what sounds in the first frame has not begun
    assert measure(samples, rate)["onset_rate_hz"] == pytest.approx(len(at_s) / 4)
    assert onset_times_s(Sound(samples, rate)) == pytest.approx(at_s, abs=0.04)


@pytest.mark.parametrize("rate", RATES)
def test_steady_noise_has_its_centroid_in_the_middle_and_no_onsets(rate):
    measured = measure(noise(rate=rate), rate)
    assert measured["spectral_centroid_hz"] == pytest.approx(rate / 4, rel=0.02)
    # At 8 kHz there are few bins to a mel band, and its level varies more.
    assert measured["onset_rate_hz"] <= (0 if rate >= 16_000 else 1)


def test_a_decaying_note_is_one_onset_and_a_fade_is_none():
    t = times(2, 32_000)
    note = np.where(t >= 0.5, np.exp(-4 * (t - 0.5)) * np.sin(2 * np.pi * 220 * t), 0)
    assert onset_times_s(Sound(note[np.newaxis], RATE)) == pytest.approx([0.5], abs=0.04)
    fade = t / 2 * np.sin(2 * np.pi * 220 * t)
    assert onset_times_s(Sound(fade[np.newaxis], RATE)).size == 0


@pytest.mark.parametrize("gain", [0.05, 0.1, 8.0])
def test_gain_moves_the_levels_and_nothing_else(gain):
    samples = notes([57, 60, 64, 69] * 2) + noise(level=0.02)
    before, after = measure(samples, RATE), measure((gain * samples).astype(np.float32), RATE)
    moved_db = 20 * math.log10(gain)
    levels = {"loudness_lufs", "rms_dbfs", "peak_dbfs"}
    for name in levels:
        assert after[name] - before[name] == pytest.approx(moved_db, abs=1e-3)
    for name in set(NUMBERS) - levels - {"clipping_share"}:
        assert after[name] == pytest.approx(before[name], rel=2e-3, abs=1e-3, nan_ok=True), name
    assert after["key_estimate"] == before["key_estimate"]


def test_the_sample_rate_moves_only_what_is_counted_in_bins():
    low, high = (measure(notes([57, 60, 64, 69] * 2, rate=rate), rate) for rate in (16_000, 48_000))
    by_bins = {
        "spectral_flatness_db",
        "spectral_contrast_db",
        "timbre_change_db",
    }
    # Where a note breaks off, the rest of its edge lies above the lower rate's limit.
    by_bins |= {"spectral_centroid_hz", "spectral_bandwidth_hz", "spectral_rolloff_hz"}
    for name in set(NUMBERS) - by_bins:
        assert high[name] == pytest.approx(low[name], rel=0.05, abs=0.02, nan_ok=True), name
    assert high["key_estimate"] == low["key_estimate"] == "A minor"


def test_beyond_full_scale_is_measured_and_not_clipped():
    measured = measure(sine(997, amplitude=2.0), 32_000)
    assert measured["peak_dbfs"] == pytest.approx(6.02, abs=0.05)
    assert measured["rms_dbfs"] == pytest.approx(3.01, abs=0.01)
    # A sine of amplitude 2 is at 1 or above for two thirds of the time.
    assert measured["clipping_share"] == pytest.approx(2 / 3, abs=0.01)
    assert measure(sine(1000, amplitude=0.99), RATE)["clipping_share"] == 0


def test_digital_silence_has_no_numbers_rather_than_false_ones():
    measured = measure(np.zeros((1, 32_000), np.float32), 32_000)
    assert measured["is_silent"] is True
    known = {"silence_ratio": 1, "silent_end_s": 1, "clipping_share": 0}
    for name in NUMBERS:
        assert measured[name] == known[name] if name in known else math.isnan(measured[name]), name
    assert measured["key_estimate"] is None


def test_what_is_too_quiet_to_hear_has_a_level_and_no_timbre():
    measured = measure(sine(1000, amplitude=10 ** (-70 / 20)), 32_000)
    assert measured["is_silent"] is True
    assert measured["rms_dbfs"] == pytest.approx(-73.01, abs=0.01)
    assert math.isnan(measured["spectral_centroid_hz"])


def test_the_silence_ratio_is_the_share_of_silent_time():
    samples = sine(440, duration_s=4)
    samples[:, 32_000:] = 0
    assert measure(samples, 32_000)["silence_ratio"] == pytest.approx(0.75)
    # ... and silence does not pull the centroid towards 0 Hz; the cut itself is one click.
    assert measure(samples, 32_000)["spectral_centroid_hz"] == pytest.approx(440, rel=0.25)


def test_channels_that_would_cancel_in_a_mix_are_measured():
    one = sine(1000, amplitude=0.5)
    stereo, mono = measure(np.concatenate([one, -one]), RATE), measure(one, RATE)
    # Loudness alone adds up over channels (BS.1770); all else is averaged.
    assert stereo["loudness_lufs"] == pytest.approx(mono["loudness_lufs"] + 3.01, abs=0.01)
    for name in set(NUMBERS) - {"loudness_lufs"}:
        assert stereo[name] == pytest.approx(mono[name], rel=1e-3, abs=1e-4, nan_ok=True), name


def test_a_loud_and_a_silent_channel_have_their_mean_power_and_the_louder_peak():
    one = sine(1000)
    stereo = measure(np.concatenate([one, np.zeros_like(one)]), 32_000)
    assert stereo["rms_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert stereo["peak_dbfs"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("n", [1, 10, 640, 2000])
def test_a_very_short_clip_is_measured(n):
    measured = measure(np.full((1, n), 0.5, np.float32), 32_000)
    assert measured["rms_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert math.isfinite(measured["spectral_centroid_hz"])
    assert measured["onset_rate_hz"] == 0


def test_a_clip_without_samples_is_silent_and_has_no_numbers():
    measured = measure(np.zeros((1, 0), np.float32), 32_000)
    assert measured["is_silent"] is True
    assert all(math.isnan(measured[name]) for name in NUMBERS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_clip_that_is_not_finite_has_no_numbers_and_is_not_silent(bad):
    samples = sine(440)
    samples[0, 100] = bad
    measured = measure(samples, 32_000)
    assert measured["is_silent"] is False
    assert all(math.isnan(measured[name]) for name in NUMBERS)


@pytest.mark.parametrize("rate", RATES)
def test_a_full_scale_sine_has_minus_3_lufs_in_one_channel(rate):
    assert measure(sine(997, rate=rate), rate)["loudness_lufs"] == pytest.approx(-3.01, abs=0.05)


def test_loudness_leaves_pauses_out_and_is_unknown_under_a_block():
    half = sine(997, duration_s=4)
    half[:, 2 * RATE :] = 0
    assert measure(half, RATE)["loudness_lufs"] == pytest.approx(-3.01, abs=0.4)
    assert math.isnan(measure(sine(997, duration_s=0.39), RATE)["loudness_lufs"])
    assert measure(sine(997, duration_s=0.4), RATE)["loudness_lufs"] == pytest.approx(-3, abs=0.1)


def test_every_timbre_feature_of_white_noise_has_its_known_value():
    measured = measure(noise(duration_s=4), RATE)
    # The power of a bin of noise is exponentially distributed: its mean log is Euler's constant
    # below the log of its mean.
    assert measured["spectral_flatness_db"] == pytest.approx(-2.51, abs=0.05)
    # Magnitudes are Rayleigh distributed and symmetric about a quarter of the sample rate.
    assert measured["spectral_bandwidth_hz"] == pytest.approx(RATE / 2 / math.sqrt(12), rel=0.02)
    assert measured["spectral_rolloff_hz"] == pytest.approx(0.85 * RATE / 2, rel=0.02)
    assert measured["zero_crossing_rate_hz"] == pytest.approx(RATE / 2, rel=0.02)
    assert measured["harmonic_ratio"] == pytest.approx(0.5, abs=0.1)
    assert measured["beat_strength"] < 0.2
    assert math.isnan(measured["tempo_bpm"])
    assert measured["key_estimate"] is None
    assert measured["self_similarity"] < 0.1


def test_clicks_are_percussive_and_tones_have_more_contrast_than_noise():
    assert measure(clicks(2)[0], RATE)["harmonic_ratio"] < 0.05
    tone = sine(220) + sine(3000) + noise(level=1e-3)
    contrasts = [measure(sound, RATE)["spectral_contrast_db"] for sound in (tone, noise())]
    assert contrasts[0] > contrasts[1] + 5


@pytest.mark.parametrize("bpm", [70, 88, 97, 120, 140, 160, 180, 200])
def test_clicks_have_their_tempo_and_a_strong_beat(bpm):
    measured = measure(clicks(bpm / 60, duration_s=8)[0], RATE)
    assert measured["tempo_bpm"] == pytest.approx(bpm, rel=0.01)
    assert measured["beat_strength"] > 0.6


def test_irregular_clicks_have_no_strong_beat():
    samples = np.zeros((1, 8 * RATE), np.float32)
    samples[0, np.random.default_rng(1).integers(0, 8 * RATE, 16)] = 0.8
    assert measure(samples, RATE)["beat_strength"] < 0.5


@pytest.mark.parametrize("midi", [40, 57, 69, 84])
def test_one_note_is_one_pitch_class_and_three_are_three(midi):
    root_hz = 440 * 2 ** ((midi - 69) / 12)
    assert measure(sine(root_hz), RATE)["pitch_class_entropy"] < 0.06
    major = measure(chord(root_hz, root_hz * 2 ** (4 / 12), root_hz * 2 ** (7 / 12)), RATE)
    assert major["pitch_class_entropy"] == pytest.approx(math.log(3) / math.log(12), abs=0.04)


@pytest.mark.parametrize(
    ("scale", "key"),
    [
        ([60, 62, 64, 65, 67, 69, 71, 72, 67, 64, 60, 60], "C major"),
        ([62, 64, 65, 67, 69, 70, 72, 74, 69, 65, 62, 62], "D minor"),
    ],
)
def test_a_scale_around_its_triad_has_its_key(scale, key):
    measured = measure(notes(scale), RATE)
    assert measured["key_estimate"] == key
    assert measured["key_clarity"] > 0.01


def test_a_loop_is_found_with_its_length_and_a_melody_that_never_returns_is_not():
    phrase = [60, 67, 64, 71, 62, 69, 65, 72]  # two seconds
    loop = measure(notes(phrase * 4), RATE)
    assert loop["self_similarity"] > 0.9
    assert loop["repeat_lag_s"] == pytest.approx(2.0, abs=0.05)
    wandering = np.random.default_rng(3).permutation(np.arange(50, 82))
    assert measure(notes(wandering), RATE)["self_similarity"] < 0.8


def test_a_clip_that_dies_away_is_seen_to():
    dying = sine(440, amplitude=0.1, duration_s=4)
    dying[:, round(2.5 * RATE) :] = 0
    measured = measure(dying, RATE)
    assert measured["silent_end_s"] == pytest.approx(1.5, abs=0.05)
    assert measured["level_change_db"] == pytest.approx(-60 + 23.01, abs=0.1)
    assert math.isnan(measured["timbre_change_db"])  # silence has no timbre


def test_a_drifting_clip_is_distinguished_from_a_fading_one():
    drifting = np.concatenate([sine(300, amplitude=0.1), sine(3000, amplitude=0.1)], axis=1)
    fading = sine(300, duration_s=4) * np.linspace(1, 0.1, 4 * RATE)
    drift, fade = measure(drifting, RATE), measure(fading.astype(np.float32), RATE)
    assert drift["level_change_db"] == pytest.approx(0, abs=0.1)
    assert fade["level_change_db"] < -10
    assert drift["timbre_change_db"] > 5 * fade["timbre_change_db"]


def test_every_feature_says_its_unit_what_it_was_tested_on_and_where_it_fails():
    for feature in FEATURES.values():
        assert feature.label and feature.unit and feature.description.endswith(".")
        assert "Known truth: " in feature.measure.__doc__


def crossfade(first, second, duration_s):
    share = np.linspace(0, 1, round(duration_s * RATE))
    return ((1 - share) * first + share * second).astype(np.float32)


A_MINOR, G_MAJOR = (220.0, 261.63, 329.63), (196.0, 246.94, 293.66)


def test_slow_change_is_no_repetition():
    pads = [
        chord(*(number * hz for hz in notes_hz for number in range(1, 9)), duration_s=8)
        for notes_hz in (A_MINOR, G_MAJOR)
    ]
    fade = pads[0] * 10 ** np.linspace(0, -12 / 20, 8 * RATE)
    assert measure(pads[0], RATE)["self_similarity"] == 0
    assert measure(crossfade(*pads, 8), RATE)["self_similarity"] < 0.1
    assert measure(fade.astype(np.float32), RATE)["self_similarity"] < 0.1


def test_sections_that_come_again_are_a_repetition():
    first, second = notes([60, 67, 64, 71]), notes([50, 54, 57, 62])
    there_and_back = measure(np.concatenate([first, second] * 4, axis=1), RATE)
    assert there_and_back["self_similarity"] > 0.9
    assert there_and_back["repeat_lag_s"] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("jitter_s", [0.0, 0.01, 0.02])
def test_the_regularity_of_a_beat_is_that_of_its_jitter(jitter_s):
    rng, period_s = np.random.default_rng(0), 0.125
    at_s = np.arange(0.2, 29.8, 4 * period_s)
    samples = np.zeros((1, 30 * RATE), np.float32)
    samples[0, np.round((at_s + rng.normal(0, jitter_s, at_s.size)) * RATE).astype(int)] = 0.8
    expected = math.exp(-2 * (math.pi * jitter_s / period_s) ** 2)
    assert measure(samples, RATE)["beat_regularity"] == pytest.approx(expected, abs=0.08)


def test_the_other_tempo_is_half_or_double_of_a_kick_and_snare():
    samples = np.zeros((1, 8 * RATE), np.float32)
    beat = np.round(np.arange(0.1, 7.9, 0.5) * RATE).astype(int)
    samples[0, beat[::2]], samples[0, beat[1::2]] = 0.8, 0.2
    measured = measure(samples, RATE)
    assert measured["tempo_bpm"] == pytest.approx(120, rel=0.01)
    assert measured["tempo_alternative_bpm"] in (
        pytest.approx(60, rel=0.01),
        pytest.approx(240, rel=0.01),
    )


def test_a_constant_offset_has_neither_notes_nor_a_key():
    measured = measure(np.full((1, 4 * RATE), 0.5, np.float32), RATE)
    assert measured["key_estimate"] is None
    assert math.isnan(measured["pitch_class_entropy"])


@pytest.mark.parametrize("name", ["spectral_flatness_db", "spectral_contrast_db", "harmonic_ratio"])
def test_stereo_noise_is_as_noisy_as_mono(name):
    mono, stereo = (measure(noise(channels=channels), RATE)[name] for channels in (1, 2))
    assert stereo == pytest.approx(mono, rel=0.03)


def test_sound_clipped_in_16_bits_is_as_clipped_as_in_floats():
    loud = sine(997, amplitude=2.0)
    as_16_bits = np.clip(np.round(loud * 32768), -32768, 32767).astype(np.float32) / 32768
    clipped = [measure(samples, RATE)["clipping_share"] for samples in (loud, as_16_bits)]
    assert clipped[1] == pytest.approx(clipped[0], abs=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [100, 1000])
def test_a_rate_too_low_for_notes_is_measured_without_them(rate):
    measured = measure(noise(rate=rate, duration_s=8), rate)
    assert math.isfinite(measured["spectral_centroid_hz"])
    assert math.isnan(measured["loudness_lufs"])


@pytest.mark.filterwarnings("error")
def test_a_clip_far_beyond_full_scale_is_measured():
    measured = measure(1e20 * sine(440), RATE)
    assert measured["peak_dbfs"] == pytest.approx(400, abs=0.1)
    assert measured["spectral_centroid_hz"] == pytest.approx(440, rel=0.01)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"samples must be of shape \(channels, n\), got \(100,\)"):
        measure(np.zeros(100), 32_000)
    with pytest.raises(ValueError, match="sample_rate must be above 0 Hz, got 0"):
        measure(np.zeros((1, 100)), 0)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("spectral_centroid", "spectral_centroid_hz"),
        ("Onset rate", "onset_rate_hz"),
        ("sharpnes", None),
    ],
)
def test_unknown_features_are_refused_with_those_that_may_be_meant(given, meant):
    hint = rf" \(did you mean {meant}\?\)" if meant else ""
    with pytest.raises(InvalidRequest, match=rf"unknown feature '{given}'{hint}; the features are"):
        chosen_features([given])


def test_what_is_no_name_is_no_feature():
    with pytest.raises(InvalidRequest, match=r"unknown feature \['rms_dbfs'\] \(did you mean rms"):
        chosen_features([["rms_dbfs"]])


def test_a_difference_of_levels_is_in_decibels_and_one_of_loudness_in_loudness_units():
    units = {name: FEATURES[name].difference_unit for name in FEATURES}
    assert (units["loudness_lufs"], units["rms_dbfs"], units["onset_rate_hz"]) == (
        "LU",
        "dB",
        "per second",
    )
