"""How loud a clip is, and when it is silent."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

SILENCE_DBFS = -60.0
"""A frame whose RMS level is under this is silent."""

SILENCE_FRAME_S = 0.05


def rms_dbfs(samples: Array) -> float:
    """Return the RMS level over all channels in dB re full scale; NaN where every sample is 0."""
    return _level_db(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def peak_dbfs(samples: Array) -> float:
    """Return the largest absolute sample in dB re full scale; NaN where every sample is 0.

    This is the sample peak: the wave between the samples may be higher (ITU-R BS.1770, true peak).
    """
    return _level_db(float(np.max(np.abs(samples))))


def clipping_share(samples: Array) -> float:
    """Return the share of samples at full scale or beyond, from 0 to 1."""
    return float(np.mean(np.abs(samples) >= 1.0))


def silence_ratio(samples: Array, sample_rate: int) -> float:
    """Return the share of 50 ms frames under -60 dBFS, from 0 to 1. The last may be shorter."""
    return float(np.mean(silent_frames(samples, sample_rate)))


def silent_end_s(samples: Array, sample_rate: int) -> float:
    """Return how long a clip is silent at its end, in seconds, in steps of 50 ms."""
    sounding = np.flatnonzero(~silent_frames(samples, sample_rate))
    sounds_until_n = (sounding[-1] + 1) * _frame_n(sample_rate) if sounding.size else 0
    return max(0.0, float(samples.shape[1] - sounds_until_n) / sample_rate)


def silent_frames(samples: Array, sample_rate: int) -> np.ndarray:
    """Return which 50 ms frames are under -60 dBFS. The last may be shorter."""
    starts = np.arange(0, samples.shape[1], _frame_n(sample_rate))
    lengths = np.diff(np.append(starts, samples.shape[1]))
    power = np.mean(np.square(samples, dtype=np.float64), axis=0)
    mean_square = np.add.reduceat(power, starts) / lengths
    return np.asarray(mean_square < 10 ** (SILENCE_DBFS / 10))


def _frame_n(sample_rate: int) -> int:
    return max(1, round(SILENCE_FRAME_S * sample_rate))


def _level_db(amplitude: float) -> float:
    return float(20 * np.log10(amplitude)) if amplitude > 0 else float("nan")
