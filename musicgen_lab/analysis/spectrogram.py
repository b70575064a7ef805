"""Spectrograms with a calibrated level: dB re full scale, the same for every clip.

Levels are never taken relative to a clip's own maximum: that would make a clip and its tenth the
same picture. The transform and the mel bands are librosa's, which is imported when first needed:
that takes 1.5 to 2 s.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.librosa_modules import load_librosa

Array = npt.NDArray[np.floating]

WINDOW_S = 0.064  # 15.6 Hz apart, so that 96 mel bands are all filled up to 48 kHz
HOP_S = 0.016
N_MELS = 96
FLOOR_DB = -120.0
"""The lowest level there is, in dB re full scale: what digital silence is given."""


@dataclass(frozen=True, eq=False)
class MelSpectrogram:
    """How much of a clip's power lies in each mel band, over time.

    Attributes
    ----------
    level_db : np.ndarray [shape=(n_mels, t), dtype=float32]
        RMS level of each band in dB re full scale (1.0), never below `FLOOR_DB`. A sine of
        amplitude 1 has -3 dB, spread over at most two bands.
    frequencies_hz : np.ndarray [shape=(n_mels,)]
        Centres of the bands in Hz, rising.
    times_s : np.ndarray [shape=(t,)]
        Centres of the frames in seconds.
    """

    level_db: npt.NDArray[np.float32]
    frequencies_hz: Array
    times_s: Array

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Its outer edges in seconds and in mels: left, right, bottom, top."""
        times_s, mels = self.times_s, hz_to_mel(self.frequencies_hz)
        half_hop = (times_s[1] - times_s[0]) / 2 if len(times_s) > 1 else WINDOW_S / 2
        half_band = (mels[1] - mels[0]) / 2
        edges = (times_s[0] - half_hop, times_s[-1] + half_hop)
        return (*edges, mels[0] - half_band, mels[-1] + half_band)


def mel_spectrogram_db(
    samples: Array,
    sample_rate: int,
    *,
    n_mels: int = N_MELS,
    window_s: float = WINDOW_S,
    hop_s: float = HOP_S,
    pad: bool = True,
) -> MelSpectrogram:
    """Return a clip's mel spectrogram in dB re full scale.

    Short-time Fourier transform with a Hann window, power averaged over the channels (a mix could
    cancel them), summed in triangular bands on Slaney's mel scale [1]_ from 0 Hz to half the
    sample rate. Neighbouring bands add up to one, so that the bands' powers add up to the clip's.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Full scale is 1.0.
    sample_rate : int
        In Hz. Nothing is resampled.
    n_mels : int > 0
        Number of bands.
    window_s, hop_s : float > 0
        Length of a frame and distance between frames, in seconds.
    pad : bool
        True covers the whole clip, with zeros before and after. False takes only the frames that
        lie inside it, as `power_spectrogram` does.

    Returns
    -------
    MelSpectrogram

    Raises
    ------
    ValueError
        When samples is not of shape (channels, n) with n > 0, or sample_rate is not positive.

    References
    ----------
    .. [1] Slaney, M. (1998). Auditory Toolbox. Interval Research Corporation, report 1998-010.
    """
    power, _, times_s = power_spectrogram(
        samples, sample_rate, window_s=window_s, hop_s=hop_s, pad=pad
    )
    return mel_from_power(power.mean(axis=0), sample_rate, times_s, n_mels=n_mels)


def mel_from_power(
    power: Array, sample_rate: int, times_s: Array, *, n_mels: int = N_MELS
) -> MelSpectrogram:
    """Return the mel spectrogram of a power spectrogram, (bins, t), as `mel_spectrogram_db`."""
    filters, frequencies_hz = mel_filters(sample_rate, power.shape[0], n_mels)
    level_db = 10 * np.log10(np.maximum(filters @ power, np.finfo(np.float32).tiny))
    level_db = np.maximum(level_db, FLOOR_DB).astype(np.float32)
    return MelSpectrogram(level_db, frequencies_hz, times_s)


def power_spectrogram(
    samples: Array, sample_rate: int, *, window_s: float, hop_s: float, pad: bool
) -> tuple[Array, Array, Array]:
    """Return the power of each channel of a clip in each frequency bin, over time.

    Parameters and errors are those of `mel_spectrogram_db`.

    Returns
    -------
    power : np.ndarray [shape=(channels, bins, t)]
        One-sided; a frame's bins add up to its mean square under the window (Parseval). With
        `pad`, half a frame of zeros stands before and after the clip. Without, a clip shorter than
        a frame is one frame, with zeros on both sides.
    frequencies_hz : np.ndarray [shape=(bins,)]
    times_s : np.ndarray [shape=(t,)]
        Centres of the frames.
    """
    librosa = load_librosa()

    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"samples must be of shape (channels, n), n > 0, got {samples.shape}")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be above 0 Hz, got {sample_rate}")
    window_n = 2 * max(1, round(window_s * sample_rate / 2))
    hop_n = max(1, round(hop_s * sample_rate))
    lacking = window_n if pad else max(0, window_n - samples.shape[1])
    before, after = lacking // 2, lacking - lacking // 2
    # The square of a sample over 1e15 does not fit into 32 bits.
    dtype = np.float32 if np.max(np.abs(samples)) < 1e15 else np.float64
    padded = np.pad(samples.astype(dtype, copy=False), ((0, 0), (before, after)))
    spectrum = librosa.stft(padded, n_fft=window_n, hop_length=hop_n, center=False)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    power *= dtype(2 / (window_n * np.sum(librosa.filters.get_window("hann", window_n) ** 2)))
    power[:, [0, -1]] /= 2  # 0 Hz and half the sample rate have no mirror image
    centres = np.arange(power.shape[2]) * hop_n + window_n // 2 - before
    return power, np.fft.rfftfreq(window_n, 1 / sample_rate), centres / sample_rate


@functools.lru_cache(maxsize=16)
def mel_filters(sample_rate: int, bins: int, n_mels: int) -> tuple[Array, Array]:
    """Return triangular mel bands, each with a peak of one, and their centres in Hz; not to change.

    Returns
    -------
    filters : np.ndarray [shape=(n_mels, bins), dtype=float32]
    frequencies_hz : np.ndarray [shape=(n_mels,)]
    """
    librosa = load_librosa()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of empty bands, at rates too low for music
        filters = librosa.filters.mel(
            sr=sample_rate, n_fft=2 * (bins - 1), n_mels=n_mels, norm=None
        )
    corners = librosa.mel_frequencies(n_mels + 2, fmax=sample_rate / 2)
    for shared in (filters, corners):
        shared.flags.writeable = False
    return filters, corners[1:-1]


def hz_to_mel(frequency_hz: Array) -> Array:
    """Convert Hz to mels on Slaney's scale."""
    librosa = load_librosa()

    return np.asarray(librosa.hz_to_mel(frequency_hz))


def mel_to_hz(mel: Array) -> Array:
    """Convert mels on Slaney's scale to Hz."""
    librosa = load_librosa()

    return np.asarray(librosa.mel_to_hz(mel))
