"""The field's reference libraries give the same bands, timbre and loudness."""

from __future__ import annotations

import librosa
import numpy as np
import pyloudnorm
import pytest

from musicgen_lab.analysis.constant_q import constant_q_db
from musicgen_lab.analysis.loudness import loudness_lufs
from musicgen_lab.analysis.spectrogram import mel_filters, power_spectrogram
from musicgen_lab.analysis.timbre import SoundingSpectrum, timbre

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


THEIRS = {
    "spectral_centroid_hz": librosa.feature.spectral_centroid,
    "spectral_bandwidth_hz": librosa.feature.spectral_bandwidth,
    "spectral_rolloff_hz": librosa.feature.spectral_rolloff,
    "spectral_flatness": lambda sr, **given: librosa.feature.spectral_flatness(**given),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_features_of_timbre_are_librosas(samples, name):
    theirs = THEIRS[name](y=samples, sr=RATE, n_fft=WINDOW_N, hop_length=HOP_N, center=False)
    ours = timbre(SoundingSpectrum.of(samples[np.newaxis], RATE))[name]
    # librosa counts the two outermost bins, which have no mirror image, as much as the others.
    assert ours == pytest.approx(theirs.mean(), rel=2e-3)


def test_the_semitones_are_librosas():
    frequencies_hz = constant_q_db(np.zeros((1, RATE)), RATE).frequencies_hz
    assert frequencies_hz == pytest.approx(
        librosa.cqt_frequencies(len(frequencies_hz), fmin=librosa.note_to_hz("C2"))
    )


def test_the_loudness_is_pyloudnorms():
    rng = np.random.default_rng(0)
    music = rng.normal(0, 0.1, (2, 3 * RATE)) * np.linspace(0, 1, 3 * RATE) ** 2
    theirs = pyloudnorm.Meter(RATE, filter_class="DeMan").integrated_loudness(music.T)
    assert loudness_lufs(music, RATE) == pytest.approx(theirs, abs=0.05)
