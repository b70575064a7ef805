"""Features of onsets, tempo and regularity. None of them depends on gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lab.analysis.librosa_modules import load_librosa
from musicgen_lab.analysis.registry import feature
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import HOP_S, Array

ONSET_RANGE_DB = 60.0  # what lies further below the clip's loudest band does not count
ONSET_LAG_FRAMES = (
    2  # a rise is measured over 32 ms: an attack of strings takes longer than a frame
)
ONSET_RISE_DB = 1.0  # above the mean of the rises nearby; steady noise stays under it
ONSET_PEAK_S, ONSET_NEARBY_S = 0.03, 0.1

TEMPO_RANGE_BPM = (40.0, 250.0)
TEMPO_CANDIDATES = 400  # 0.5% apart
TEMPO_EXPECTED_BPM, TEMPO_SPREAD_OCTAVES = 110.0, 0.6
TEMPO_MULTIPLES = 4  # of the beat, after which the onsets must come again as well
TEMPO_RELATIONS = (1 / 3, 1 / 2, 2 / 3, 3 / 2, 2, 3)  # under which a tempo is mistaken for another
BEATS_FEWEST = 4  # that must fit into a clip for its tempo to be measured
GRID_PER_BEAT, GRID_TOLERANCE = 4, 0.02  # sixteenth notes, up to 2% off the tempo
BEAT_STRENGTH_LOWEST = 0.2  # under it, what there is of a period may be chance


def onset_strength_db(sound: Sound) -> Array:
    """Return the onset strength of every frame: the rise in level, in dB averaged over mel bands.

    librosa's spectral flux, of levels down to 60 dB below the clip's loudest band.

    Returns
    -------
    np.ndarray [shape=(t,)]
        At least 0, in the frames of `Sound.mel`. What sounds from the first frame on is no rise.
    """
    librosa = load_librosa()

    level_db = np.maximum(sound.mel.level_db, sound.mel.level_db.max() - ONSET_RANGE_DB)
    if level_db.shape[1] <= ONSET_LAG_FRAMES:
        return np.zeros(level_db.shape[1])
    return np.asarray(
        librosa.onset.onset_strength(S=level_db, lag=ONSET_LAG_FRAMES, center=False), np.float64
    )


def onset_times_s(sound: Sound) -> Array:
    """Return the onset times in seconds: (onsets,), at least 30 ms apart.

    The peaks of the onset strength that librosa picks. They must stand 1 dB above the mean of the
    0.2 s around them: not relative to the clip's largest peak, as is librosa's default, which
    finds 6 to 13 onsets a second in steady noise and pads.
    """
    librosa = load_librosa()

    frames = librosa.onset.onset_detect(
        onset_envelope=sound.once(onset_strength_db),
        normalize=False,
        delta=ONSET_RISE_DB,
        pre_max=round(ONSET_PEAK_S / HOP_S),
        post_max=round(ONSET_PEAK_S / HOP_S) + 1,
        pre_avg=round(ONSET_NEARBY_S / HOP_S),
        post_avg=round(ONSET_NEARBY_S / HOP_S) + 1,
        wait=round(ONSET_PEAK_S / HOP_S),
    )
    return np.asarray(sound.mel.times_s[frames])


@feature("Onset rate", "per second", default=True)
def onset_rate_hz(sound: Sound) -> float:
    """Beginnings of notes and strokes per second; several at once count as one.

    Known truth: rendered pieces of nine instruments (docs/features.md), clicks, noise and pads.

    Limits: misses what is soft beside something loud, and strings and flutes that repeat a note
    without a pause, and the first 64 ms: what sounds there has not begun. Onsets closer than 30 ms
    are one. Noise sampled at 8 kHz has up to 0.5 per second.

    Source: Böck et al. (2012), Evaluating the online capabilities of onset detection methods,
    ISMIR.
    """
    return len(sound.once(onset_times_s)) / sound.duration_s


@dataclass(frozen=True)
class Tempo:
    """The tempo of a clip.

    Attributes
    ----------
    bpm, alternative_bpm : float
        The best tempo, and the best of those that are mistaken for it. NaN where there is no beat.
    strength : float
        From 0 to 1; NaN for a clip too short to have four beats of any tempo.
    """

    bpm: float
    alternative_bpm: float
    strength: float


def tempo(sound: Sound) -> Tempo:
    """Return the tempo of a clip, the best alternative and how strong its beat is.

    Each tempo is judged by how alike the onset strength is to itself one to four beats later
    (autocorrelation, which a multiple of the beat has as well), by how much of it goes with the
    beat and with half beats (Fourier transform, which a fraction of the beat has as well), and by
    how usual the tempo is. On the pieces of docs/features.md this names the tempo more often than
    `librosa.feature.tempo`, which takes the autocorrelation alone.
    """
    strength_db = sound.once(onset_strength_db)
    n, duration_s = len(strength_db), len(strength_db) * HOP_S
    unknown = float("nan")
    bpm = np.geomspace(*TEMPO_RANGE_BPM, TEMPO_CANDIDATES)
    bpm = bpm[bpm >= 60 * BEATS_FEWEST / max(duration_s, HOP_S)]
    if bpm.size == 0:
        return Tempo(unknown, unknown, unknown)
    if strength_db.max() < ONSET_RISE_DB:
        return Tempo(unknown, unknown, 0.0)
    change_db = strength_db - strength_db.mean()
    likeness = lagged_correlation(change_db[np.newaxis], n // 2)
    lags = np.multiply.outer(np.arange(1, TEMPO_MULTIPLES + 1), 60 / bpm / HOP_S)
    later = np.interp(lags, np.arange(len(likeness)), likeness, right=np.nan)
    strength = np.clip(np.nanmean(later, axis=0), 0, 1)
    windowed = change_db * np.hanning(n)
    whole, half = (_periodicity(windowed, parts * bpm / 60) for parts in (1, 2))
    usual = np.exp(-0.5 * (np.log2(bpm / TEMPO_EXPECTED_BPM) / TEMPO_SPREAD_OCTAVES) ** 2)
    score = strength * whole**0.25 * half**0.5 * usual
    best = int(np.argmax(score))
    if strength[best] < BEAT_STRENGTH_LOWEST:
        return Tempo(unknown, unknown, float(strength[best]))
    others = [
        int(np.argmin(np.abs(bpm - relation * bpm[best])))
        for relation in TEMPO_RELATIONS
        if bpm[0] <= relation * bpm[best] <= bpm[-1]
    ]
    alternative = max(others, key=lambda other: score[other], default=None)
    return Tempo(
        float(bpm[best]),
        unknown if alternative is None else float(bpm[alternative]),
        float(strength[best]),
    )


@feature("Tempo", "BPM")
def tempo_bpm(sound: Sound) -> float:
    """Beats per minute, from 40 to 250; NaN where no beat stands out (beat strength under 0.2).

    Known truth: rendered pieces and drum patterns (docs/features.md), clicks from 50 to 220 BPM.

    Limits: another multiple of the tempo, mostly half or double, is named for one piece in four;
    see the tempo alternative before comparing means. One tempo for the whole clip.

    Source: Peeters (2007), Template-based estimation of time-varying tempo, EURASIP Journal on
    Advances in Signal Processing.
    """
    return sound.once(tempo).bpm


@feature("Alternative tempo", "BPM")
def tempo_alternative_bpm(sound: Sound) -> float:
    """The tempo that is the likeliest one if the named one is not: mostly its half or double.

    Known truth: for every rendered piece and drum pattern of docs/features.md the tempo or this one
    is right.

    Limits: NaN where there is no beat.
    """
    return sound.once(tempo).alternative_bpm


@feature("Beat strength", "0 to 1")
def beat_strength(sound: Sound) -> float:
    """How much of the onsets comes again after one to four beats: their mean correlation.

    Known truth: clicks have over 0.6, noise under 0.2.

    Limits: regular swells of level have a beat as well. NaN for a clip too short to have four
    beats.

    Source: Ellis (2007), Beat tracking by dynamic programming, Journal of New Music Research 36(1).
    """
    return sound.once(tempo).strength


@feature("Beat regularity", "0 to 1")
def beat_regularity(sound: Sound) -> float:
    """How exactly the onsets keep to an even grid of four to the beat: 1 exactly, 0 at random.

    The length of their mean vector around the circle of a sixteenth note, corrected for their
    number.

    Known truth: onsets that are off by s seconds (standard deviation), in a grid of p seconds,
    have exp(-2 (pi s / p)^2).

    Limits: triplets and swing are off the grid; onsets are timed to 16 ms. NaN where there is no
    tempo or under four onsets.

    Source: Fisher (1993), Statistical Analysis of Circular Data, chapter 2.
    """
    bpm, onsets_s = sound.once(tempo).bpm, sound.once(onset_times_s)
    count = len(onsets_s)
    if not np.isfinite(bpm) or count < BEATS_FEWEST:
        return float("nan")
    grid_hz = bpm / 60 * GRID_PER_BEAT * (1 + np.linspace(-GRID_TOLERANCE, GRID_TOLERANCE, 161))
    vectors = np.exp(2j * np.pi * np.multiply.outer(grid_hz, onsets_s)).mean(axis=1)
    squared = float(np.max(np.abs(vectors))) ** 2
    return float(np.sqrt(max(0.0, (count * squared - 1) / (count - 1))))


def _periodicity(change_db: Array, frequencies_hz: Array) -> Array:
    """Return the share of a change that goes with each frequency: (frequencies,), from 0 to 1."""
    times_s = np.arange(len(change_db)) * HOP_S
    waves = np.exp(-2j * np.pi * np.multiply.outer(frequencies_hz, times_s))
    return np.asarray(np.abs(waves @ change_db) / max(np.abs(change_db).sum(), 1e-12))


def lagged_correlation(rows: Array, longest: int) -> Array:
    """Return the autocorrelation of rows over time.

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
