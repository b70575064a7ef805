"""Features of a clip's form: repetition, and the change from its beginning to its end."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.levels import level_dbfs
from musicgen_lab.analysis.registry import feature
from musicgen_lab.analysis.rhythm import lagged_correlation
from musicgen_lab.analysis.sound import SILENCE_DBFS, Sound
from musicgen_lab.analysis.spectrogram import HOP_S, Array

FRAMES_APART = 2  # of the spectrogram: 32 ms is enough to follow a clip
RANGE_DB = 60.0  # what lies further below the clip's loudest band does not count
CHANGE_LEAST_DB = 3.0  # RMS; pads, noise and fades have 1 to 3, rendered music 4.7 and more
LAG_SHORTEST_S = 0.5
SMOOTHING_S = 0.128  # so that a lag that falls between two frames is found as well
QUARTERS, SPAN_SHORTEST_S = 4, 1.0
_TIE = 0.02  # a lag and its multiples are alike up to this; the shortest is given


@feature("Repetition", "0 to 1", default=True)
def self_similarity(sound: Sound) -> float:
    """How much the clip repeats itself: 1 an exact loop, 0 nothing comes again.

    The correlation of the mel spectrogram in dB, less its average over time, with itself some time
    later, falls as the clip moves away from itself and rises where it comes back. Measured is the
    largest rise over the lowest point before it, at most 1, over lags from half a second to half of
    the clip. Slow change (a fade, a crossfade) falls without rising.

    Known truth: loops and pieces of two alternating phrases have over 0.9, fades, noise and
    crossfades of two chords under 0.1; melodies that never return 0.2 to 0.5 (docs/features.md).

    Limits: an even beat repeats itself, whatever is played to it. What comes again after more than
    half of the clip is not seen. 0 for steady sounds, NaN for clips under two seconds.

    Source: Foote (1999), Visualizing music and audio using self-similarity, ACM Multimedia.
    """
    return sound.once(repetition)[0]


@feature("Repeat lag", "s")
def repeat_lag_s(sound: Sound) -> float:
    """The time after which the clip repeats itself most, from 0.5 s to half of its length.

    Of several that are as good, the shortest.

    Known truth: a loop of 2 s has 2.

    Limits: as the repetition; says nothing where that is low.
    """
    return sound.once(repetition)[1]


@feature("Level change", "dB")
def level_change_db(sound: Sound) -> float:
    """RMS level of the last quarter less that of the first, both at least -60 dBFS.

    Known truth: a fade of 12 dB over the whole clip has -9.

    Limits: a swell that comes and goes has none. NaN for clips under a second.
    """
    samples = sound.samples
    if sound.duration_s < SPAN_SHORTEST_S:
        return float("nan")
    quarter = samples.shape[1] // QUARTERS
    first, last = (
        max(SILENCE_DBFS, np.nan_to_num(level_dbfs(part), nan=SILENCE_DBFS))
        for part in (samples[:, :quarter], samples[:, -quarter:])
    )
    return float(last - first)


@feature("Timbre change", "dB")
def timbre_change_db(sound: Sound) -> float:
    """Root mean square difference of the mel spectra of the last and first quarter, without level.

    Known truth: two tones one after the other have more than a tone that fades; a fade has next to
    none.

    Limits: other notes of the same instrument count as well. NaN for clips under a second and where
    one of the quarters is silent.
    """
    level_db = sound.mel.level_db
    if level_db.shape[1] < QUARTERS or sound.duration_s < SPAN_SHORTEST_S:
        return float("nan")
    quarter = level_db.shape[1] // QUARTERS
    parts = [
        10 * np.log10(np.mean(10 ** (part.astype(np.float64) / 10), axis=1))
        for part in (level_db[:, :quarter], level_db[:, -quarter:])
    ]
    if any(10 * np.log10(np.sum(10 ** (part / 10))) < SILENCE_DBFS for part in parts):
        return float("nan")
    shapes = [np.maximum(part - part.max(), -RANGE_DB) for part in parts]
    difference = shapes[1] - shapes[0]
    return float(np.sqrt(np.mean(np.square(difference - difference.mean()))))


def repetition(sound: Sound) -> tuple[float, float]:
    """Return the self-similarity and the lag in seconds, both as the features of that name."""
    curve = repetition_curve(sound)
    if curve.size == 0:
        return float("nan"), float("nan")
    rise = curve - np.minimum.accumulate(curve)
    shortest = round(LAG_SHORTEST_S / (FRAMES_APART * HOP_S))
    rise[:shortest] = 0
    best = float(rise.max())
    if best <= 0:
        return 0.0, float("nan")
    peak = int(np.flatnonzero(rise >= best - _TIE)[0])
    while peak + 1 < len(rise) and rise[peak + 1] > rise[peak]:
        peak += 1  # on to the top of the first peak that is as good
    return min(best, 1.0), peak * FRAMES_APART * HOP_S


def repetition_curve(sound: Sound) -> Array:
    """Return the autocorrelation of the spectrogram, from lag 0 on.

    Returns
    -------
    np.ndarray [shape=(lags,)]
        Correlations, every 32 ms up to half of the clip; 0 for steady sounds, empty for clips
        under two seconds.
    """
    from scipy.ndimage import uniform_filter1d

    hop_s = FRAMES_APART * HOP_S
    level_db = sound.mel.level_db[:, ::FRAMES_APART]
    longest = level_db.shape[1] // 2
    if longest < 2 * round(LAG_SHORTEST_S / hop_s):
        return np.empty(0)
    level_db = np.maximum(level_db, level_db.max() - RANGE_DB)
    level_db = uniform_filter1d(level_db, max(1, round(SMOOTHING_S / hop_s)), axis=1)
    change_db = level_db - level_db.mean(axis=1, keepdims=True)
    if float(np.sqrt(np.mean(np.square(change_db)))) < CHANGE_LEAST_DB:
        return np.zeros(longest + 1)
    return lagged_correlation(change_db, longest)
