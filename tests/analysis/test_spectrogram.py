"""Mel levels are calibrated: what is known of a signal can be read from its spectrogram."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.analysis.spectrogram import (
    FLOOR_DB,
    N_MELS,
    hz_to_mel,
    mel_filters,
    mel_spectrogram_db,
    mel_to_hz,
    power_spectrogram,
)

RATE = 32_000


def sine(frequency_hz, *, amplitude=1.0, duration_s=1.0, rate=RATE):
    t = np.arange(round(duration_s * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency_hz * t))[np.newaxis].astype(np.float32)


def noise(channels=1, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (channels, RATE)).astype(np.float32)


def total_db(mel):
    return 10 * np.log10(np.sum(10 ** (mel.level_db / 10), axis=0))


@pytest.mark.parametrize("frequency_hz", [220, 1000, 5000])
def test_a_sine_is_loudest_in_the_band_of_its_frequency(frequency_hz):
    mel = mel_spectrogram_db(sine(frequency_hz), RATE)
    middle = mel.level_db[:, mel.level_db.shape[1] // 2]
    nearest = np.argmin(np.abs(hz_to_mel(mel.frequencies_hz) - hz_to_mel(np.array(frequency_hz))))
    assert abs(int(np.argmax(middle)) - nearest) <= 1


@pytest.mark.parametrize("rate", [8_000, 16_000, 32_000, 44_100, 48_000])
def test_a_full_scale_sine_has_minus_3_db_at_every_sample_rate(rate):
    mel = mel_spectrogram_db(sine(1000, rate=rate), rate)
    assert total_db(mel)[10:-10] == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_bands_add_up_to_the_power_of_the_clip(channels):
    samples = noise(channels)
    power, _, _ = power_spectrogram(samples, RATE, window_s=0.064, hop_s=0.016, pad=False)
    assert power.sum(axis=1).mean() == pytest.approx(np.mean(samples**2), rel=0.02)
    mel = mel_spectrogram_db(samples, RATE, pad=False)
    # Below the lowest band's centre and above the highest one's the triangles fall off.
    assert 10 * np.log10(np.mean(samples**2)) == pytest.approx(total_db(mel).mean(), abs=0.15)


def test_a_tenth_of_the_amplitude_is_20_db_less_everywhere():
    loud, soft = (mel_spectrogram_db(gain * noise(), RATE).level_db for gain in (1.0, 0.1))
    assert soft == pytest.approx(loud - 20, abs=0.01)


def test_silence_is_the_floor_and_nothing_is_below_it():
    assert np.all(mel_spectrogram_db(np.zeros((1, RATE), np.float32), RATE).level_db == FLOOR_DB)
    assert mel_spectrogram_db(1e-9 * noise(), RATE).level_db.min() == FLOOR_DB


def test_channels_that_would_cancel_in_a_mix_are_both_seen():
    one = noise()
    mel = mel_spectrogram_db(np.concatenate([one, -one]), RATE)
    assert mel.level_db == pytest.approx(mel_spectrogram_db(one, RATE).level_db, abs=1e-3)


def test_times_are_seconds_and_cover_the_clip():
    samples = np.zeros((1, 2 * RATE), np.float32)
    samples[0, RATE] = 1.0
    mel = mel_spectrogram_db(samples, RATE)
    assert mel.times_s[0] == 0
    assert mel.times_s[-1] == pytest.approx(2, abs=0.02)
    assert mel.times_s[np.argmax(mel.level_db.mean(axis=0))] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("n", [1, 100, 2047])
@pytest.mark.parametrize("pad", [True, False])
def test_a_clip_shorter_than_a_frame_is_shown(n, pad):
    mel = mel_spectrogram_db(np.ones((1, n), np.float32), RATE, pad=pad)
    assert mel.level_db.shape == (N_MELS, len(mel.times_s))
    assert np.isfinite(mel.level_db).all()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_no_band_is_empty(rate):
    filters, frequencies_hz = mel_filters(rate, round(0.064 * rate / 2) + 1, N_MELS)
    assert filters.max(axis=1).min() > 0.3
    assert np.all(np.diff(frequencies_hz) > 0)
    assert frequencies_hz[-1] < rate / 2


def test_mels_and_hz_are_each_others_inverse():
    frequencies_hz = np.array([0.0, 500.0, 1000.0, 1000.1, 16_000.0])
    assert mel_to_hz(hz_to_mel(frequencies_hz)) == pytest.approx(frequencies_hz)


@pytest.mark.parametrize("shape", [(RATE,), (1, 0), (0, RATE)])
def test_samples_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"samples must be of shape \(channels, n\)"):
        mel_spectrogram_db(np.zeros(shape), RATE)


def test_a_sample_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="sample_rate must be above 0 Hz, got 0"):
        mel_spectrogram_db(np.zeros((1, 100)), 0)
