"""Which notes a clip is made of: its pitch classes and its key. None depends on gain."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.constant_q import PITCH_CLASSES, constant_q_power, fold_octaves
from musicgen_lab.analysis.spectrogram import Array

CHROMA_HOP_S = 0.064

# How well each degree of a scale fits its key, as listeners rated it, from the tonic up (probe
# tones, Krumhansl and Kessler 1982).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def pitch_class_distribution(samples: Array, sample_rate: int) -> Array:
    """Return the share of a clip's power that lies at each pitch class, C first.

    From C2 (65 Hz) up, with the overtones, tuned to A4 = 440 Hz (`constant_q`).

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz.

    Returns
    -------
    np.ndarray [shape=(12,)]
        Adds up to 1; NaN where nothing sounds above 61 Hz.
    """
    power, _, _ = constant_q_power(samples, sample_rate, hop_s=CHROMA_HOP_S)
    by_class = fold_octaves(power).sum(axis=1, dtype=np.float64)
    total = by_class.sum()
    return by_class / total if total > 0 else np.full(12, np.nan)


def pitch_class_entropy(distribution: Array) -> float:
    """Return how many pitch classes a clip is spread over: Shannon entropy.

    Parameters
    ----------
    distribution : np.ndarray [shape=(12,)]
        Shares that add up to 1.

    Returns
    -------
    float
        From 0, a single one, to 1, all alike; a triad of equal notes has 0.44. NaN for a
        distribution that is NaN.
    """
    if np.isnan(distribution).any():
        return float("nan")
    share = np.maximum(distribution, np.finfo(float).tiny)
    return float(-np.sum(share * np.log(share)) / np.log(len(share)))


def estimate_key(distribution: Array) -> tuple[str | None, float]:
    """Return the major or minor key that fits best, and how well.

    Krumhansl and Schmuckler's algorithm [1]_: the correlation of the distribution with the profile
    of each of the 24 keys.

    Parameters
    ----------
    distribution : np.ndarray [shape=(12,)]
        Shares that add up to 1, C first.

    Returns
    -------
    key : str or None
        Such as "C major" or "F# minor". None for a distribution that is NaN or flat; else there
        is always one: look at the clarity.
    clarity : float
        The correlation, from -1 to 1; noise is mostly under 0.5. NaN where there is no key.

    References
    ----------
    .. [1] Krumhansl, C. L. (1990). Cognitive Foundations of Musical Pitch, chapter 4. Oxford.
    """
    if not np.ptp(distribution) > 0:
        return None, float("nan")
    names, fits = [], []
    for mode, profile in (("major", _MAJOR), ("minor", _MINOR)):
        for tonic, name in enumerate(PITCH_CLASSES):
            names.append(f"{name} {mode}")
            fits.append(np.corrcoef(np.roll(profile, tonic), distribution)[0, 1])
    best = int(np.argmax(fits))
    return names[best], float(fits[best])
