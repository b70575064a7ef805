"""The field's reference library gives the same bands and the same centroid."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from musicgen_lab.analysis.features import spectral_centroid_hz
from musicgen_lab.analysis.spectrogram import mel_filters, power_spectrogram

RATE = 32_000
WINDOW_N, HOP_N = 2048, 512


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    t = np.arange(2 * RATE) / RATE
    return (0.1 * rng.standard_normal(t.size) + np.sin(2 * np.pi * 500 * t)).astype(np.float32)


def test_the_mel_bands_are_librosas():
    ours, centres_hz = mel_filters(RATE, WINDOW_N // 2 + 1, 96)
    theirs = librosa.filters.mel(sr=RATE, n_fft=WINDOW_N, n_mels=96, norm=None)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert centres_hz == pytest.approx(librosa.mel_frequencies(98, fmax=RATE / 2)[1:-1])


def test_the_spectrum_is_librosas_up_to_its_scale(samples):
    ours, frequencies_hz, times_s = power_spectrogram(
        samples[np.newaxis], RATE, window_s=0.064, hop_s=0.016, pad=True
    )
    theirs = np.abs(librosa.stft(samples, n_fft=WINDOW_N, hop_length=HOP_N)) ** 2
    scale = 2 / (WINDOW_N * np.sum(librosa.filters.get_window("hann", WINDOW_N) ** 2))
    assert ours[1:-1] == pytest.approx(theirs[1:-1] * scale, rel=1e-2, abs=1e-9)
    assert frequencies_hz == pytest.approx(librosa.fft_frequencies(sr=RATE, n_fft=WINDOW_N))
    assert times_s == pytest.approx(librosa.times_like(theirs, sr=RATE, hop_length=HOP_N))


def test_the_spectral_centroid_is_librosas(samples):
    theirs = librosa.feature.spectral_centroid(
        y=samples, sr=RATE, n_fft=WINDOW_N, hop_length=HOP_N, center=False
    )
    # librosa counts the two outermost bins, which have no mirror image, as much as the others.
    assert spectral_centroid_hz(samples[np.newaxis], RATE) == pytest.approx(theirs.mean(), rel=5e-4)
