"""Every feature is right on a signal whose answer is known, and silent where it cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musicgen_lab.analysis.features import FEATURES, measure, onset_times_s

RATES = [8_000, 16_000, 32_000, 44_100, 48_000]


def times(duration_s, rate):
    return np.arange(round(duration_s * rate)) / rate


def sine(frequency_hz, *, amplitude=1.0, duration_s=2.0, rate=32_000):
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * times(duration_s, rate))
    return wave[np.newaxis].astype(np.float32)


def clicks(per_second, *, duration_s=4.0, rate=32_000):
    samples = np.zeros((1, round(duration_s * rate)), np.float32)
    at_s = np.arange(0.5 / per_second, duration_s, 1 / per_second)
    samples[0, np.round(at_s * rate).astype(int)] = 0.8
    return samples, at_s


def noise(*, level=0.1, rate=32_000, channels=1):
    return np.random.default_rng(0).normal(0, level, (channels, 2 * rate)).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_is_known_in_every_feature(rate):
    measured = measure(sine(1000, amplitude=0.5, rate=rate), rate)
    assert list(measured) == list(FEATURES)
    assert measured["rms_dbfs"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)
    assert measured["peak_dbfs"] == pytest.approx(20 * math.log10(0.5), abs=0.1)
    assert measured["silence_ratio"] == 0
    assert measured["is_silent"] is False
    assert measured["spectral_centroid_hz"] == pytest.approx(1000, rel=0.01)
    assert measured["onset_rate_hz"] == 0  # it sounds from the start and never begins anew


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("per_second", [1, 4, 10])
def test_clicks_are_counted_at_their_rate_and_their_times(rate, per_second):
    samples, at_s = clicks(per_second, rate=rate)
    assert measure(samples, rate)["onset_rate_hz"] == pytest.approx(per_second)
    assert onset_times_s(samples, rate) == pytest.approx(at_s, abs=0.04)


@pytest.mark.parametrize("rate", RATES)
def test_steady_noise_has_its_centroid_in_the_middle_and_no_onsets(rate):
    measured = measure(noise(rate=rate), rate)
    assert measured["spectral_centroid_hz"] == pytest.approx(rate / 4, rel=0.02)
    assert measured["onset_rate_hz"] == 0


def test_a_decaying_note_is_one_onset_and_a_fade_is_none():
    t = times(2, 32_000)
    note = np.where(t >= 0.5, np.exp(-4 * (t - 0.5)) * np.sin(2 * np.pi * 220 * t), 0)
    assert onset_times_s(note[np.newaxis], 32_000) == pytest.approx([0.5], abs=0.04)
    fade = t / 2 * np.sin(2 * np.pi * 220 * t)
    assert onset_times_s(fade[np.newaxis], 32_000).size == 0


@pytest.mark.parametrize("gain", [0.01, 0.1, 8.0])
def test_gain_moves_the_levels_and_nothing_else(gain):
    samples = clicks(4)[0] + noise(level=0.02).repeat(2, axis=1)
    before, after = measure(samples, 32_000), measure((gain * samples).astype(np.float32), 32_000)
    moved_db = 20 * math.log10(gain)
    assert after["rms_dbfs"] - before["rms_dbfs"] == pytest.approx(moved_db, abs=1e-3)
    assert after["peak_dbfs"] - before["peak_dbfs"] == pytest.approx(moved_db, abs=1e-3)
    for name in ("spectral_centroid_hz", "onset_rate_hz"):
        if after["silence_ratio"] == before["silence_ratio"]:
            assert after[name] == pytest.approx(before[name], rel=1e-3)


def test_beyond_full_scale_is_measured_and_not_clipped():
    measured = measure(sine(1000, amplitude=2.0), 32_000)
    assert measured["peak_dbfs"] == pytest.approx(6.02, abs=0.05)
    assert measured["rms_dbfs"] == pytest.approx(3.01, abs=0.01)


def test_digital_silence_has_no_numbers_rather_than_false_ones():
    measured = measure(np.zeros((1, 32_000), np.float32), 32_000)
    assert measured["is_silent"] is True
    assert measured["silence_ratio"] == 1
    for name in ("rms_dbfs", "peak_dbfs", "spectral_centroid_hz", "onset_rate_hz"):
        assert math.isnan(measured[name])


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
    stereo = measure(np.concatenate([one, -one]), 32_000)
    assert stereo == pytest.approx(measure(one, 32_000), rel=1e-4)


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
    assert measured.pop("is_silent") is True
    assert all(math.isnan(value) for value in measured.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_clip_that_is_not_finite_has_no_numbers_and_is_not_silent(bad):
    samples = sine(440)
    samples[0, 100] = bad
    measured = measure(samples, 32_000)
    assert measured.pop("is_silent") is False
    assert all(math.isnan(value) for value in measured.values())


def test_every_feature_says_its_unit_and_how_it_is_measured():
    for feature in FEATURES.values():
        assert feature.label and feature.unit and feature.description.endswith(".")


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"samples must be of shape \(channels, n\), got \(100,\)"):
        measure(np.zeros(100), 32_000)
    with pytest.raises(ValueError, match="sample_rate must be above 0 Hz, got 0"):
        measure(np.zeros((1, 100)), 0)
