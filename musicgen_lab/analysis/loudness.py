"""How loud a clip is to a person: integrated loudness by ITU-R BS.1770.

In NumPy alone, because importing SciPy's filters takes longer than measuring a small run; tests
hold it against pyloudnorm and the standard's own coefficients.
"""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

BLOCK_S, HOP_S = 0.4, 0.1
GATE_LUFS, GATE_BELOW_MEAN_LU = -70.0, 10.0
CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, the surrounds
_OFFSET_LU = -0.691  # so that a 997 Hz sine of amplitude 1 in one channel has -3.01 LUFS
_SETTLING_S = 1.0  # zeros after the clip in which the filter's slowest part dies away


def loudness_lufs(samples: Array, sample_rate: int) -> float:
    """Return the integrated loudness in LUFS, as a person judges it over the whole clip.

    K-weighted and gated as in ITU-R BS.1770-4 [1]_. A 1 kHz sine of amplitude 1 in one channel has
    -3; the same in two has 0, as loudness adds up over channels.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        At most five channels, as far as the standard goes.
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        NaN for clips under 0.4 s, the standard's block, for those under its gate of -70 LUFS, and
        for more than five channels.

    References
    ----------
    .. [1] ITU-R BS.1770-4 (2015). Algorithms to measure audio programme loudness and true-peak
       audio level.
    """
    channels, n = samples.shape
    block_n = round(BLOCK_S * sample_rate)
    if n < block_n or channels > len(CHANNEL_WEIGHTS):
        return float("nan")
    squared = np.square(k_weighted(samples, sample_rate), dtype=np.float64)
    power = np.asarray(CHANNEL_WEIGHTS[:channels]) @ squared
    cumulated = np.concatenate([[0.0], np.cumsum(power)])
    starts = np.round(np.arange(0, (n - block_n) / sample_rate + 1e-9, HOP_S) * sample_rate)
    starts = starts.astype(int)
    blocks = (cumulated[starts + block_n] - cumulated[starts]) / block_n
    blocks = blocks[_lufs(blocks) >= GATE_LUFS]
    if blocks.size == 0:
        return float("nan")
    blocks = blocks[_lufs(blocks) >= _lufs(blocks.mean()) - GATE_BELOW_MEAN_LU]
    return float(_lufs(blocks.mean()))


def k_weighted(samples: Array, sample_rate: int) -> Array:
    """Return the samples filtered as the ear weights them, before and after the head (BS.1770)."""
    n = samples.shape[1]
    padded_n = -(-(n + round(_SETTLING_S * sample_rate)) // 4096) * 4096  # a fast length
    spectrum = np.fft.rfft(samples, padded_n, axis=1)
    delay = np.exp(-2j * np.pi * np.arange(spectrum.shape[1]) / padded_n)  # one sample, z^-1
    for numerator, denominator in k_filters(sample_rate):
        spectrum *= np.polyval(numerator[::-1], delay) / np.polyval(denominator[::-1], delay)
    return np.fft.irfft(spectrum, padded_n, axis=1)[:, :n]


def k_filters(sample_rate: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the coefficients of the two filters at any sample rate: a high shelf, a high pass.

    The standard gives them at 48 kHz; these are the analogue filters behind them, as worked out by
    De Man [1]_.

    References
    ----------
    .. [1] De Man, B. (2018). Evaluation of implementations of the EBU R128 loudness measurement.
       Audio Engineering Society Convention 145.
    """
    gain_db, frequency_hz, quality = 3.999843853973347, 1681.974450955533, 0.7071752369554196
    k = np.tan(np.pi * frequency_hz / sample_rate)
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    scale = 1 + k / quality + k**2
    shelf = (
        np.array(
            [high + band * k / quality + k**2, 2 * (k**2 - high), high - band * k / quality + k**2]
        )
        / scale,
        np.array([scale, 2 * (k**2 - 1), 1 - k / quality + k**2]) / scale,
    )
    frequency_hz, quality = 38.13547087602444, 0.5003270373238773
    k = np.tan(np.pi * frequency_hz / sample_rate)
    scale = 1 + k / quality + k**2
    high_pass = (
        np.array([1.0, -2.0, 1.0]),
        np.array([scale, 2 * (k**2 - 1), 1 - k / quality + k**2]) / scale,
    )
    return shelf, high_pass


def _lufs(power: Array) -> Array:
    return np.asarray(_OFFSET_LU + 10 * np.log10(np.maximum(power, 1e-30)))
