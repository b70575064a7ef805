"""Levels are librosa's up to a known scale: a spectrogram in dB re full scale."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from musicgen_lab.analysis.spectrogram import power_spectrogram

RATE = 32_000
WINDOW_N, HOP_N = 2048, 512


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    t = np.arange(2 * RATE) / RATE
    return (0.1 * rng.standard_normal(t.size) + np.sin(2 * np.pi * 500 * t)).astype(np.float32)


def test_the_spectrum_is_librosas_up_to_its_scale(samples):
    ours, frequencies_hz, times_s = power_spectrogram(
        samples[np.newaxis], RATE, window_s=0.064, hop_s=0.016, pad=True
    )
    theirs = np.abs(librosa.stft(samples, n_fft=WINDOW_N, hop_length=HOP_N)) ** 2
    scale = 2 / (WINDOW_N * np.sum(librosa.filters.get_window("hann", WINDOW_N) ** 2))
    assert ours[0, 1:-1] == pytest.approx(theirs[1:-1] * scale, rel=1e-2, abs=1e-9)
    assert frequencies_hz == pytest.approx(librosa.fft_frequencies(sr=RATE, n_fft=WINDOW_N))
    assert times_s == pytest.approx(librosa.times_like(theirs, sr=RATE, hop_length=HOP_N))
