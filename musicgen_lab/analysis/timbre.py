"""What the spectrum of a clip is like, frame by frame and averaged over the frames that sound.

None depends on gain, as long as the same frames sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.levels import SILENCE_DBFS
from musicgen_lab.analysis.spectrogram import HOP_S, WINDOW_S, Array, power_spectrogram

ROLLOFF_SHARE = 0.85
CONTRAST_LOWEST_HZ, CONTRAST_QUANTILE = 200.0, 0.02
MEDIAN_S, MEDIAN_HZ = 0.5, 500.0  # spans of the medians that part tones from clicks
FRAMES_APART = 2  # of the spectrogram, for the medians: the frames overlap by three quarters
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class SoundingSpectrum:
    """The power spectrogram of a clip, and which of its frames sound.

    Attributes
    ----------
    power : np.ndarray [shape=(bins, t)]
        As `power_spectrogram` without padding; all frames.
    frequencies_hz : np.ndarray [shape=(bins,)]
    times_s : np.ndarray [shape=(t,)]
    sounding : np.ndarray of bool [shape=(t,)]
        Whether a frame's level is at least -60 dBFS.
    """

    power: Array
    frequencies_hz: Array
    times_s: Array
    sounding: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Array, sample_rate: int) -> SoundingSpectrum:
        """Measure a clip, (channels, n), in frames of 64 ms."""
        power, frequencies_hz, times_s = power_spectrogram(
            samples, sample_rate, window_s=WINDOW_S, hop_s=HOP_S, pad=False
        )
        return cls(power, frequencies_hz, times_s, power.sum(axis=0) >= 10 ** (SILENCE_DBFS / 10))


def timbre(spectrum: SoundingSpectrum) -> dict[str, float]:
    """Return all that this module measures, by the names of `features.FEATURES`.

    Returns
    -------
    dict of str to float
        NaN where no frame sounds.
    """
    names = (
        "spectral_centroid_hz",
        "spectral_bandwidth_hz",
        "spectral_rolloff_hz",
        "spectral_flatness",
        "spectral_contrast_db",
        "spectral_entropy",
        "harmonic_ratio",
    )
    if not spectrum.sounding.any():
        return dict.fromkeys(names, float("nan"))
    power = spectrum.power[:, spectrum.sounding]
    frequencies_hz, magnitude = spectrum.frequencies_hz, np.sqrt(power)
    per_frame = (
        spectral_centroid_hz(magnitude, frequencies_hz),
        spectral_bandwidth_hz(magnitude, frequencies_hz),
        spectral_rolloff_hz(magnitude, frequencies_hz),
        spectral_flatness(power),
        spectral_contrast_db(magnitude, frequencies_hz),
        spectral_entropy(power),
    )
    values = [float(np.mean(frames, dtype=np.float64)) for frames in per_frame]
    return dict(zip(names, [*values, harmonic_ratio(spectrum)], strict=True))


def spectral_centroid_hz(magnitude: Array, frequencies_hz: Array) -> Array:
    """Return the magnitude-weighted mean frequency of each frame, in Hz.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(bins, t)]
        No frame all zeros, here and below.
    frequencies_hz : np.ndarray [shape=(bins,)]

    Returns
    -------
    np.ndarray [shape=(t,)]
        From 0 to half the sample rate.

    References
    ----------
    .. [1] Klapuri, A., and Davy, M., eds. (2007). Signal Processing Methods for Music
       Transcription, chapter 5. Springer.
    """
    return np.asarray(frequencies_hz @ magnitude / magnitude.sum(axis=0, dtype=np.float64))


def spectral_bandwidth_hz(magnitude: Array, frequencies_hz: Array) -> Array:
    """Return the magnitude-weighted standard deviation of frequency of each frame, in Hz [1]_.

    References
    ----------
    .. [1] Klapuri and Davy (2007), as for the centroid.
    """
    weights = magnitude / magnitude.sum(axis=0, dtype=np.float64)
    mean_square = np.square(frequencies_hz) @ weights
    variance = np.maximum(mean_square - np.square(frequencies_hz @ weights), 0)
    return np.asarray(np.sqrt(variance))


def spectral_rolloff_hz(magnitude: Array, frequencies_hz: Array) -> Array:
    """Return the frequency in Hz under which 85% of each frame's magnitude lies [1]_.

    References
    ----------
    .. [1] Tzanetakis, G., and Cook, P. (2002). Musical genre classification of audio signals. IEEE
       Transactions on Speech and Audio Processing 10(5).
    """
    cumulated = np.cumsum(magnitude, axis=0, dtype=np.float64)
    reached = np.argmax(cumulated >= ROLLOFF_SHARE * cumulated[-1], axis=0)
    return np.asarray(frequencies_hz[reached])


def spectral_flatness(power: Array) -> Array:
    """Return how noise-like each frame is: geometric over arithmetic mean of its power [1]_.

    Returns
    -------
    np.ndarray [shape=(t,)]
        From 0, a tone, to 1; white noise has 0.56, as its bins vary.

    References
    ----------
    .. [1] Dubnov, S. (2004). Generalization of spectral flatness measure for non-Gaussian linear
       processes. IEEE Signal Processing Letters 11(8).
    """
    log_mean = np.mean(np.log(np.maximum(power, _TINY)), axis=0)
    return np.asarray(np.exp(log_mean) / np.mean(power, axis=0))


def spectral_contrast_db(magnitude: Array, frequencies_hz: Array) -> Array:
    """Return how far peaks stand above valleys in each frame, in dB, averaged over octaves [1]_.

    The highest 2% of the magnitudes against the lowest 2%, in the band up to 200 Hz and in every
    octave above it up to half the sample rate.

    References
    ----------
    .. [1] Jiang, D.-N., et al. (2002). Music type classification by spectral contrast feature.
       Proceedings of ICME.
    """
    octave = np.ceil(np.log2(np.maximum(frequencies_hz, CONTRAST_LOWEST_HZ) / CONTRAST_LOWEST_HZ))
    contrast_db = []
    for band in np.unique(octave):
        ordered = np.sort(magnitude[octave == band], axis=0)
        few = max(1, round(CONTRAST_QUANTILE * len(ordered)))
        valley, peak = ordered[:few].mean(axis=0), ordered[-few:].mean(axis=0)
        # Under -100 dB of the frame's peak there is nothing but rounding.
        floor = np.maximum(1e-5 * magnitude.max(axis=0), _TINY)
        contrast_db.append(20 * np.log10(np.maximum(peak, floor) / np.maximum(valley, floor)))
    return np.asarray(np.mean(contrast_db, axis=0))


def spectral_entropy(power: Array) -> Array:
    """Return how spread out each frame's power is over the bins: Shannon entropy [1]_.

    Returns
    -------
    np.ndarray [shape=(t,)]
        From 0, all in one bin, to 1, the same in all; white noise has 0.94 or more.

    References
    ----------
    .. [1] Misra, H., et al. (2004). Spectral entropy based feature for robust ASR. Proceedings of
       ICASSP.
    """
    share = power / power.sum(axis=0)
    entropy = -np.sum(share * np.log(np.maximum(share, _TINY)), axis=0)
    return np.asarray(entropy / np.log(len(power)))


def harmonic_ratio(spectrum: SoundingSpectrum) -> float:
    """Return the share of a clip's power that is in tones and not in clicks.

    Tones are lines along time, clicks lines along frequency: the power is parted by which of the
    two medians, over half a second or over 500 Hz, is the larger, with soft masks [1]_.

    Returns
    -------
    float
        From 0, clicks, to 1, steady tones; noise is near 0.5.

    References
    ----------
    .. [1] FitzGerald, D. (2010). Harmonic/percussive separation using median filtering.
       Proceedings of DAFx.
    """
    power = spectrum.power[:, ::FRAMES_APART]
    along_time = 2 * round(MEDIAN_S / HOP_S / FRAMES_APART / 2) + 1
    along_frequency = 2 * round(MEDIAN_HZ / spectrum.frequencies_hz[1] / 2) + 1
    tonal = _median_of_rows(power, along_time) ** 2
    percussive = _median_of_rows(power.T, along_frequency).T ** 2
    mask = (tonal + _TINY) / (tonal + percussive + 2 * _TINY)
    return float(np.sum(mask * power) / np.sum(power))


def _median_of_rows(rows: Array, length: int) -> Array:
    """Return the running median along the last axis, mirrored at its ends.

    All rows in one line with gaps between: SciPy's filter is eight times faster on a line.
    """
    from scipy.ndimage import median_filter

    half = min(length // 2, rows.shape[1])
    padded = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    line: Array = median_filter(padded.ravel(), size=2 * half + 1)
    return line.reshape(padded.shape)[:, half : half + rows.shape[1]]


def zero_crossing_rate_hz(samples: Array, sample_rate: int) -> float:
    """Return how often the sign changes per second, in Hz, averaged over the channels.

    A sine has twice its frequency; zeros count as above 0.

    References
    ----------
    .. [1] Kedem, B. (1986). Spectral analysis and discrimination by zero-crossings. Proceedings of
       the IEEE 74(11).
    """
    if samples.shape[1] < 2:
        return float("nan")
    changes = np.mean(np.diff(samples < 0, axis=1))
    return float(changes * sample_rate)
