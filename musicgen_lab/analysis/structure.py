"""How a clip goes on: whether it repeats itself, and whether its end is like its beginning."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.levels import SILENCE_DBFS, rms_dbfs
from musicgen_lab.analysis.rhythm import lagged_correlation
from musicgen_lab.analysis.spectrogram import Array, MelSpectrogram

FRAMES_APART = 2  # of the spectrogram: 32 ms is enough to follow a clip
RANGE_DB = 60.0  # what lies further below the clip's loudest band is not listened to
LAG_SHORTEST_S = 0.5
SMOOTHING_S = 0.128  # so that a lag that falls between two frames is found as well
SPAN_S, SPANS = 1.0, 4  # the change over time is that from the first to the last quarter
_TIE = 0.02  # a lag and its multiples are alike up to this; the shortest is given


def self_similarity(mel: MelSpectrogram) -> tuple[float, float]:
    """Return how much a clip repeats itself, and after how long.

    The correlation of the mel spectrogram in dB, less its average over time, with itself some time
    later: the largest over all lags from half a second to half of the clip, as on the diagonals of
    a self-similarity matrix [1]_. Does not depend on gain.

    Parameters
    ----------
    mel : MelSpectrogram

    Returns
    -------
    self_similarity : float
        From 0, nothing comes again, to 1, an exact loop. NaN for clips under two seconds and for
        steady sounds, which have nothing that could come again.
    repeat_lag_s : float
        The shortest of the lags that are as good as the best, in seconds. NaN where the
        self-similarity is, or is 0.

    References
    ----------
    .. [1] Foote, J. (1999). Visualizing music and audio using self-similarity. Proceedings of ACM
       Multimedia.
    """
    from scipy.ndimage import uniform_filter1d

    unknown = float("nan"), float("nan")
    if len(mel.times_s) < 2:
        return unknown
    hop_s = mel.times_s[1] - mel.times_s[0]
    shortest, longest = round(LAG_SHORTEST_S / hop_s), len(mel.times_s) // 2
    if longest < 2 * shortest:
        return unknown
    level_db = np.maximum(mel.level_db, mel.level_db.max() - RANGE_DB)
    level_db = uniform_filter1d(level_db, max(1, round(SMOOTHING_S / hop_s)), axis=1)
    change_db = level_db - level_db.mean(axis=1, keepdims=True)
    if float(np.sqrt(np.mean(np.square(change_db)))) < 1.0:
        return unknown
    likeness = lagged_correlation(change_db, longest)[shortest:]
    best = float(likeness.max())
    if best <= 0:
        return 0.0, float("nan")
    (good,) = np.nonzero(likeness >= best - _TIE)
    run_end = int(good[0])
    while run_end + 1 < len(likeness) and likeness[run_end + 1] > likeness[run_end]:
        run_end += 1  # on to the top of the first peak that is good enough
    return best, float((shortest + run_end) * hop_s)


def level_change_db(samples: Array, sample_rate: int) -> float:
    """Return how much louder the last quarter of a clip is than the first, in dB.

    What is under -60 dBFS counts as -60, so that a clip that dies away has a number.

    Returns
    -------
    float
        NaN for clips under a second.
    """
    if samples.shape[1] < SPAN_S * sample_rate:
        return float("nan")
    quarter = samples.shape[1] // SPANS
    first, last = (
        max(SILENCE_DBFS, np.nan_to_num(rms_dbfs(part), nan=SILENCE_DBFS))
        for part in (samples[:, :quarter], samples[:, -quarter:])
    )
    return float(last - first)


def timbre_change_db(mel: MelSpectrogram) -> float:
    """Return how far the average spectrum of a clip's last quarter is from that of its first.

    Root mean square over the mel bands of the difference of the two averages in dB, after taking
    their levels off. Does not depend on gain, nor on a change of level alone.

    Returns
    -------
    float
        At least 0 dB. NaN for clips under a second, and where one of the quarters is silent.
    """
    frames = len(mel.times_s)
    if frames < SPANS or mel.times_s[-1] - mel.times_s[0] < SPAN_S * 0.9:
        return float("nan")
    quarter = frames // SPANS
    parts = [
        10 * np.log10(np.mean(10 ** (part.astype(np.float64) / 10), axis=1))
        for part in (mel.level_db[:, :quarter], mel.level_db[:, -quarter:])
    ]
    if any(10 * np.log10(np.sum(10 ** (part / 10))) < SILENCE_DBFS for part in parts):
        return float("nan")
    shapes = [np.maximum(part - part.max(), -RANGE_DB) for part in parts]
    apart = shapes[1] - shapes[0]
    return float(np.sqrt(np.mean(np.square(apart - apart.mean()))))
