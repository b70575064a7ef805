"""Descriptors of a clip for the evaluation: timbre, rhythm and harmony as numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.spectrogram import mel_spectrogram_db, power_spectrogram
from musicgen_lab.demo.instruments import SAMPLE_RATE

Array = npt.NDArray[np.float64]

HOP_S = 0.01
SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.1, 1.25
_TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}


def describe(samples: npt.NDArray[np.float32]) -> Array:
    """Return the inputs of the attribute classifiers.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        32 kHz mono.

    Returns
    -------
    np.ndarray [shape=(d,)]
        The same d for every clip.
    """
    level_db = np.maximum(_mel_db(samples), -90.0)  # (64, t)
    rise_db = np.maximum(np.diff(level_db, axis=1), 0)
    timbre = [
        level_db.mean(1),
        level_db.std(1),
        np.percentile(level_db, 90, axis=1),
        rise_db.mean(1),
    ]
    rhythm = [autocorrelation(onset_envelope(bands)) for bands in (level_db[:6], level_db)]
    return np.concatenate([*timbre, *rhythm, mode_evidence(samples)])


def onset_envelope(level_db: Array) -> Array:
    """Return how much the level rises from one hundredth of a second to the next.

    Parameters
    ----------
    level_db : np.ndarray [shape=(bands, t)]

    Returns
    -------
    np.ndarray [shape=(t - 1,)]
        In dB, averaged over the bands.
    """
    rise_db = np.diff(np.maximum(level_db, -60.0), axis=1)
    return np.asarray(np.maximum(rise_db, 0).mean(axis=0))


def autocorrelation(envelope: Array) -> Array:
    """Return an envelope's autocorrelation at lags of 0.1 to 1.25 s: (lags,) from -1 to 1."""
    centred = envelope - envelope.mean()
    full = np.correlate(centred, centred, mode="full")[len(centred) - 1 :]
    lags = slice(round(SHORTEST_BEAT_S / HOP_S), round(LONGEST_BEAT_S / HOP_S) + 1)
    return np.asarray(full[lags] / (full[0] + 1e-9))


def refine_tempo(samples: npt.NDArray[np.float32], near_bpm: float) -> float:
    """Return the tempo within 10% of a given one with the highest autocorrelation.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
    near_bpm : float
        Chooses between a tempo and its half or double.

    Returns
    -------
    float
        In beats a minute.
    """
    envelope = onset_envelope(_mel_db(samples))
    centred = envelope - envelope.mean()
    candidates = near_bpm * np.linspace(0.9, 1.1, 81)
    times = np.arange(len(centred))

    def autocorrelation(bpm: float) -> float:
        lag = 60 / bpm / HOP_S  # of one beat, in hops
        shifts = [lag * beats for beats in (1, 2, 4) if lag * beats < 0.7 * len(centred)]
        return float(
            np.mean([np.mean(centred * np.interp(times + s, times, centred)) for s in shifts])
        )

    return float(candidates[np.argmax([autocorrelation(bpm) for bpm in candidates])])


def pitch_classes(samples: npt.NDArray[np.float32]) -> Array:
    """Return how much of a clip's magnitude is in each pitch class: (12,), C first, sum 1."""
    power, hz, _ = power_spectrogram(
        samples[None], SAMPLE_RATE, window_s=0.128, hop_s=0.032, pad=False
    )
    heard = (hz > 120) & (hz < 1200)
    midi = 69 + 12 * np.log2(hz[heard] / 440)
    nearest = np.round(midi).astype(int)
    closeness = np.maximum(0, 1 - 2.5 * np.abs(midi - nearest))
    magnitude = np.sqrt(power[0, heard]).mean(axis=1) * closeness
    chroma = np.bincount(nearest % 12, weights=magnitude, minlength=12)
    return np.asarray(chroma / (chroma.sum() + 1e-12))


def mode_evidence(samples: npt.NDArray[np.float32]) -> Array:
    """Return how well the triads of both modes fit, and by how much major fits better: (3,).

    Every piece starts on its tonic chord, so the triad is looked for in the whole clip and,
    weighing as much, in its first second.
    """
    chroma = pitch_classes(samples) + pitch_classes(samples[:SAMPLE_RATE])
    fits = {
        mode: max(sum(chroma[(root + step) % 12] for step in triad) for root in range(12))
        for mode, triad in _TRIADS.items()
    }
    return np.array([fits["major"], fits["minor"], fits["major"] - fits["minor"]])


def _mel_db(samples: npt.NDArray[np.float32]) -> Array:
    mel = mel_spectrogram_db(
        samples[None], SAMPLE_RATE, n_mels=64, window_s=0.04, hop_s=HOP_S, pad=False
    )
    return mel.level_db.astype(np.float64)
