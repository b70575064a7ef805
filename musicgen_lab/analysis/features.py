"""Numbers that describe a clip, each with its unit, range and source. No model, no weights.

Everything is measured on the raw samples: nothing is normalised, resampled or mixed down. What a
number cannot say is NaN: silence has no spectral centroid and no onset rate, and digital silence
has no level either.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from musicgen_lab.analysis.spectrogram import (
    HOP_S,
    WINDOW_S,
    Array,
    mel_spectrogram_db,
    power_spectrogram,
)

FEATURES_VERSION = 1
"""Raised when a feature's numbers change, so that stored ones are measured again."""

SILENCE_DBFS = -60.0
"""A frame whose RMS level is under this is silent."""

SILENCE_FRAME_S = 0.05
ONSET_WINDOW_S, ONSET_HOP_S, ONSET_BANDS = 0.04, 0.01, 40
ONSET_RANGE_DB = 60.0  # what lies further below the clip's loudest band is not listened to
ONSET_RISE_DB = 2.0  # above the rises nearby, averaged over the bands; steady noise stays under 1
ONSET_PEAK_S, ONSET_NEARBY_S = 0.03, 0.1


class Feature(NamedTuple):
    """What a feature is: its name for people, its unit, and one sentence on how it is measured."""

    label: str
    unit: str
    description: str


FEATURES: Mapping[str, Feature] = MappingProxyType(
    {
        "rms_dbfs": Feature(
            "RMS level",
            "dBFS",
            "Root mean square over all samples and channels, re full scale (1.0); a sine of "
            "amplitude 1 has -3.",
        ),
        "peak_dbfs": Feature(
            "Peak level",
            "dBFS",
            "Largest absolute sample of any channel, re full scale; above 0 where players clip.",
        ),
        "silence_ratio": Feature(
            "Silence ratio",
            "0 to 1",
            "Share of the clip's 50 ms frames whose RMS level is under -60 dBFS.",
        ),
        "is_silent": Feature(
            "Silent", "yes or no", "Whether every frame is silent, so that nothing is to be heard."
        ),
        "spectral_centroid_hz": Feature(
            "Spectral centroid",
            "Hz",
            "Magnitude-weighted mean frequency, averaged over the frames that are not silent: "
            "brightness.",
        ),
        "onset_rate_hz": Feature(
            "Onset rate",
            "Hz",
            "Attacks per second: sudden rises of level across the mel bands.",
        ),
    }
)
"""Every feature by its column name, in the order of the columns."""


def measure(samples: Array, sample_rate: int) -> dict[str, float | bool]:
    """Measure every feature of a clip.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Raw samples; full scale is 1.0 and may be exceeded.
    sample_rate : int
        In Hz.

    Returns
    -------
    dict of str to float or bool
        One value for each name in `FEATURES`, in that order. A clip without samples is silent and
        has NaN for every number; one with samples that are not finite has NaN for every number
        and counts as not silent.

    Raises
    ------
    ValueError
        When samples is not of shape (channels, n), or sample_rate is not positive.

    Examples
    --------
    >>> measure(np.zeros((1, 32000), np.float32), 32000)["is_silent"]
    True
    """
    if samples.ndim != 2 or samples.shape[0] == 0:
        raise ValueError(f"samples must be of shape (channels, n), got {samples.shape}")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be above 0 Hz, got {sample_rate}")
    values: dict[str, float | bool] = dict.fromkeys(FEATURES, float("nan"))
    if samples.shape[1] == 0:
        return values | {"is_silent": True}
    if not np.all(np.isfinite(samples)):
        return values | {"is_silent": False}
    ratio = silence_ratio(samples, sample_rate)
    values |= {
        "rms_dbfs": rms_dbfs(samples),
        "peak_dbfs": peak_dbfs(samples),
        "silence_ratio": ratio,
        "is_silent": ratio == 1.0,
    }
    if ratio < 1.0:
        values["spectral_centroid_hz"] = spectral_centroid_hz(samples, sample_rate)
        values["onset_rate_hz"] = len(onset_times_s(samples, sample_rate)) / (
            samples.shape[1] / sample_rate
        )
    return values


def rms_dbfs(samples: Array) -> float:
    """Return the RMS level over all channels in dB re full scale; NaN where every sample is 0."""
    return _level_db(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def peak_dbfs(samples: Array) -> float:
    """Return the largest absolute sample in dB re full scale; NaN where every sample is 0.

    This is the sample peak: the wave between the samples may be higher (ITU-R BS.1770, true peak).
    """
    return _level_db(float(np.max(np.abs(samples))))


def silence_ratio(samples: Array, sample_rate: int) -> float:
    """Return the share of 50 ms frames under -60 dBFS, from 0 to 1. The last may be shorter."""
    starts = np.arange(0, samples.shape[1], max(1, round(SILENCE_FRAME_S * sample_rate)))
    lengths = np.diff(np.append(starts, samples.shape[1]))
    power = np.mean(np.square(samples, dtype=np.float64), axis=0)
    mean_square = np.add.reduceat(power, starts) / lengths
    return float(np.mean(mean_square < 10 ** (SILENCE_DBFS / 10)))


def spectral_centroid_hz(samples: Array, sample_rate: int) -> float:
    """Return the magnitude-weighted mean frequency in Hz, averaged over frames that sound.

    The definition is that of [1]_, on the RMS spectrum of the channels. Silent frames are left out
    instead of counting as 0 Hz. Does not depend on gain, as long as the same frames sound.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        From 0 to half the sample rate; NaN where every frame is silent.

    References
    ----------
    .. [1] Klapuri, A., and Davy, M., eds. (2007). Signal Processing Methods for Music
       Transcription, chapter 5. Springer.
    """
    power, frequencies_hz, _ = power_spectrogram(
        samples, sample_rate, window_s=WINDOW_S, hop_s=HOP_S, pad=False
    )
    sounding = power.sum(axis=0) >= 10 ** (SILENCE_DBFS / 10)
    if not sounding.any():
        return float("nan")
    magnitude = np.sqrt(power[:, sounding], dtype=np.float64)
    return float(np.mean(frequencies_hz @ magnitude / magnitude.sum(axis=0)))


def onset_times_s(samples: Array, sample_rate: int) -> Array:
    """Return the times of attacks in seconds.

    Spectral flux: the rise of the level in dB from frame to frame, averaged over 40 mel bands,
    then the peaks that stand out from their surroundings [1]_. The threshold is in dB and not
    relative to the largest rise, so that a steady tone or steady noise has no onsets. Does not
    depend on gain. What sounds from the first sample on is not an onset.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz.

    Returns
    -------
    np.ndarray [shape=(onsets,)]
        Rising, at least 30 ms apart.

    References
    ----------
    .. [1] Böck, S., Krebs, F., and Schedl, M. (2012). Evaluating the online capabilities of onset
       detection methods. Proceedings of ISMIR.
    """
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    mel = mel_spectrogram_db(
        samples,
        sample_rate,
        n_mels=ONSET_BANDS,
        window_s=ONSET_WINDOW_S,
        hop_s=ONSET_HOP_S,
        pad=False,  # the abrupt end of a clip is not an attack
    )
    level_db = np.maximum(mel.level_db, mel.level_db.max() - ONSET_RANGE_DB)
    rise_db = np.maximum(np.diff(level_db, axis=1), 0).mean(axis=0)
    if rise_db.size == 0:
        return np.empty(0)
    highest = maximum_filter1d(rise_db, 2 * round(ONSET_PEAK_S / ONSET_HOP_S) + 1)
    nearby = uniform_filter1d(rise_db, 2 * round(ONSET_NEARBY_S / ONSET_HOP_S) + 1)
    (peaks,) = np.nonzero((rise_db == highest) & (rise_db >= nearby + ONSET_RISE_DB))
    apart = np.diff(peaks, prepend=-len(rise_db)) > ONSET_PEAK_S / ONSET_HOP_S
    return mel.times_s[1:][peaks[apart]]


def _level_db(amplitude: float) -> float:
    return float(20 * np.log10(amplitude)) if amplitude > 0 else float("nan")
