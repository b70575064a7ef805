"""When a clip attacks, and how regularly. None of it depends on gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.spectrogram import Array, mel_spectrogram_db

ONSET_WINDOW_S, ONSET_HOP_S, ONSET_BANDS = 0.04, 0.01, 40
ONSET_RANGE_DB = 60.0  # what lies further below the clip's loudest band is not listened to
ONSET_RISE_DB = 2.0  # above the rises nearby, averaged over the bands; steady noise stays under 1
ONSET_PEAK_S, ONSET_NEARBY_S = 0.03, 0.1

TEMPO_RANGE_BPM = (30.0, 300.0)
TEMPO_EXPECTED_BPM, TEMPO_SPREAD_OCTAVES = 120.0, 1.0
BEATS_FEWEST = 4  # that must fit into a clip for its tempo to be measured
BEAT_STRENGTH_FEWEST = 0.2  # under it, what there is of a period may be chance
TEMPOGRAM_WINDOW_S = 4.0


@dataclass(frozen=True, eq=False)
class Tempogram:
    """How regularly a clip attacks at each tempo, over time.

    Attributes
    ----------
    strength : np.ndarray [shape=(tempi, t), dtype=float32]
        0, no such period, to 1, every attack comes again after it. Not a level: the scale is the
        same for every clip.
    frequencies_hz : np.ndarray [shape=(tempi,)]
        Beats per second, rising; times 60, the tempo in BPM.
    times_s : np.ndarray [shape=(t,)]
        Centres of the frames in seconds.
    """

    strength: npt.NDArray[np.float32]
    frequencies_hz: Array
    times_s: Array


def onset_strength_db(samples: Array, sample_rate: int) -> tuple[Array, Array]:
    """Return how suddenly the level rises, over time.

    Spectral flux: the rise of the level in dB from frame to frame, averaged over 40 mel bands
    [1]_.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz.

    Returns
    -------
    rise_db : np.ndarray [shape=(t,)]
        At least 0; every 10 ms. What sounds from the first sample on is no rise.
    times_s : np.ndarray [shape=(t,)]

    References
    ----------
    .. [1] Böck, S., Krebs, F., and Schedl, M. (2012). Evaluating the online capabilities of onset
       detection methods. Proceedings of ISMIR.
    """
    mel = mel_spectrogram_db(
        samples,
        sample_rate,
        n_mels=ONSET_BANDS,
        window_s=ONSET_WINDOW_S,
        hop_s=ONSET_HOP_S,
        pad=False,  # the abrupt end of a clip is not an attack
    )
    level_db = np.maximum(mel.level_db, mel.level_db.max() - ONSET_RANGE_DB)
    return np.maximum(np.diff(level_db, axis=1), 0).mean(axis=0), mel.times_s[1:]


def onset_times_s(rise_db: Array, times_s: Array) -> Array:
    """Return the times of attacks in seconds: the peaks that stand out from their surroundings.

    The threshold is in dB and not relative to the largest rise, so that a steady tone or steady
    noise has no onsets.

    Parameters
    ----------
    rise_db, times_s : np.ndarray [shape=(t,)]
        From `onset_strength_db`.

    Returns
    -------
    np.ndarray [shape=(onsets,)]
        Rising, at least 30 ms apart.
    """
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    if rise_db.size == 0:
        return np.empty(0)
    highest = maximum_filter1d(rise_db, 2 * round(ONSET_PEAK_S / ONSET_HOP_S) + 1)
    nearby = uniform_filter1d(rise_db, 2 * round(ONSET_NEARBY_S / ONSET_HOP_S) + 1)
    (peaks,) = np.nonzero((rise_db == highest) & (rise_db >= nearby + ONSET_RISE_DB))
    apart = np.diff(peaks, prepend=-len(rise_db)) > ONSET_PEAK_S / ONSET_HOP_S
    return times_s[peaks[apart]]


def tempo(rise_db: Array) -> tuple[float, float]:
    """Return the tempo of a clip in BPM and how strong its beat is.

    The period after which the attacks come again: the highest peak of their autocorrelation, where
    periods near 120 BPM count most [1]_, as every multiple of a period is one too. Even clicks of
    88 to 160 BPM are given their tempo, faster and slower ones the multiple that lies there.

    Parameters
    ----------
    rise_db : np.ndarray [shape=(t,)]
        From `onset_strength_db`.

    Returns
    -------
    tempo_bpm : float
        From 30 to 300. NaN where no beat stands out (strength under 0.2).
    beat_strength : float
        Correlation of the attacks with those one beat later, 0 to 1. 0 where there is no attack,
        NaN for a clip too short to have four beats of any tempo.

    References
    ----------
    .. [1] Ellis, D. P. W. (2007). Beat tracking by dynamic programming. Journal of New Music
       Research 36(1).
    """
    from scipy.ndimage import uniform_filter1d

    slowest = min(round(_lag(TEMPO_RANGE_BPM[0])), len(rise_db) // BEATS_FEWEST)
    fastest = round(_lag(TEMPO_RANGE_BPM[1]))
    if slowest <= fastest:
        return float("nan"), float("nan")
    if rise_db.max() < ONSET_RISE_DB:
        return float("nan"), 0.0
    # Smoothed, so that a period that falls between two frames is found as well.
    smooth_db = uniform_filter1d(rise_db - rise_db.mean(), 5)
    strength = lagged_correlation(smooth_db[np.newaxis], slowest + 1)
    lags = np.arange(fastest, slowest + 1)
    octaves = np.log2(lags / _lag(TEMPO_EXPECTED_BPM))
    weighted = strength[lags] * np.exp(-0.5 * (octaves / TEMPO_SPREAD_OCTAVES) ** 2)
    is_peak = (strength[lags] >= strength[lags - 1]) & (strength[lags] >= strength[lags + 1])
    if not is_peak.any():
        return float("nan"), 0.0
    best = int(lags[np.argmax(np.where(is_peak, weighted, -np.inf))])
    beat_strength = float(np.clip(strength[best], 0, 1))
    before, at, after = strength[best - 1 : best + 2]
    bend = before - 2 * at + after
    between = 0.5 * (before - after) / bend if bend < 0 else 0.0  # the vertex of a parabola
    bpm = np.clip(60 / ((best + between) * ONSET_HOP_S), *TEMPO_RANGE_BPM)
    return (float(bpm) if beat_strength >= BEAT_STRENGTH_FEWEST else float("nan")), beat_strength


def tempogram(samples: Array, sample_rate: int) -> Tempogram:
    """Return how regularly a clip attacks at tempi from 30 to 300 BPM, over time.

    The autocorrelation of the onset strength in windows of 4 s [1]_; what lies before and after
    the clip counts as without attack.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz.

    Returns
    -------
    Tempogram

    References
    ----------
    .. [1] Grosche, P., Müller, M., and Kurth, F. (2010). Cyclic tempogram: a mid-level tempo
       representation for music signals. Proceedings of ICASSP.
    """
    rise_db, times_s = onset_strength_db(samples, sample_rate)
    window_n = round(TEMPOGRAM_WINDOW_S / ONSET_HOP_S)
    lags = np.arange(round(_lag(TEMPO_RANGE_BPM[0])), round(_lag(TEMPO_RANGE_BPM[1])) - 1, -1)
    every = 5  # frames of 50 ms
    frames = np.lib.stride_tricks.sliding_window_view(
        np.pad(rise_db, window_n // 2, constant_values=rise_db.mean()), window_n
    )[: len(rise_db) : every]
    views = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(window_n)
    spectrum = np.abs(np.fft.rfft(views, 2 * window_n, axis=1)) ** 2
    again = np.fft.irfft(spectrum, axis=1)[:, : window_n // 2 + 1]
    fading = np.correlate(np.hanning(window_n), np.hanning(window_n), "full")[window_n - 1 :]
    attacks = frames.max(axis=1, keepdims=True) >= ONSET_RISE_DB
    energy = np.where(attacks, again[:, :1], np.inf)
    strength = again[:, lags] / energy * (fading[0] / fading[lags])
    return Tempogram(
        np.clip(strength.T, 0, 1).astype(np.float32), 1 / (lags * ONSET_HOP_S), times_s[::every]
    )


def lagged_correlation(rows: Array, longest: int) -> Array:
    """Return how like rows over time are to themselves some frames later.

    Parameters
    ----------
    rows : np.ndarray [shape=(rows, t)]
        With a mean of 0 over time.
    longest : int
        The longest lag in frames, under t.

    Returns
    -------
    np.ndarray [shape=(longest + 1,)]
        From -1 to 1, for lags from 0 on, over all rows together; 0 where nothing is to compare.
    """
    n = rows.shape[1]
    spectrum = np.fft.rfft(rows, 2 * n, axis=1)
    together = np.fft.irfft(np.sum(np.abs(spectrum) ** 2, axis=0))[: longest + 1]
    energy = np.concatenate([[0.0], np.cumsum(np.sum(np.square(rows, dtype=np.float64), axis=0))])
    lags = np.arange(longest + 1)
    scale = np.sqrt(energy[n - lags] * np.maximum(energy[n] - energy[lags], 0))
    return np.clip(together / np.where(scale > 0, scale, np.inf), -1, 1)


def _lag(bpm: float) -> float:
    """Return the frames in a beat."""
    return 60 / bpm / ONSET_HOP_S
