"""Distances between clips, and between groups of clips.

A clip is compared by its signature, which is averaged over time: two clips that differ in when
things happen, and not in what, are close. Matrices are symmetric, with NaN for silent clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from musicgen_lab.analysis.levels import is_silent
from musicgen_lab.analysis.pitch import pitch_class_distribution
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import FLOOR_DB, N_MELS, Array

SIGNATURE_VERSION = 2
"""Raised when signatures change, so that stored ones are measured again."""

CEPSTRA = 13


def signature(samples: Array, sample_rate: int) -> Array:
    """Return a clip's signature: its mean mel spectrum and its pitch classes.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
    sample_rate : int
        In Hz. Signatures can be compared where it is the same.

    Returns
    -------
    np.ndarray [shape=(N_MELS + 12,)]
        The RMS level of each mel band in dB re full scale, then the share of each pitch class.
        NaN for a clip that is silent, without samples or not finite.
    """
    if samples.size == 0 or not np.all(np.isfinite(samples)):
        return np.full(N_MELS + 12, np.nan)
    return sound_signature(Sound(samples, sample_rate))


def sound_signature(sound: Sound) -> Array:
    """Return the signature of a sound; see `signature`."""
    if is_silent(sound):
        return np.full(N_MELS + 12, np.nan)
    power = np.mean(10 ** (sound.mel.level_db.astype(np.float64) / 10), axis=1)
    level_db = np.maximum(10 * np.log10(power), FLOOR_DB)
    return np.concatenate([level_db, pitch_class_distribution(sound)])


def log_spectral_distances(signatures: Array) -> Array:
    """Return the root mean square difference of the mel spectra, in dB [1]_.

    A difference in level counts: a clip and its tenth are 20 dB apart.

    References
    ----------
    .. [1] Gray, A., and Markel, J. (1976). Distance measures for speech processing. IEEE
       Transactions on Acoustics, Speech, and Signal Processing 24(5).
    """
    return np.asarray(_pairwise(signatures[:, :N_MELS], "euclidean") / np.sqrt(N_MELS))


def mel_cepstral_distances(signatures: Array) -> Array:
    """Return the root mean square difference of the smoothed mel spectra without level, in dB.

    Of the mel-frequency cepstrum, the first 13 coefficients without the zeroth, which is the level
    [1]_: differences of colour count, those of gain and of single tones do not.

    References
    ----------
    .. [1] Kubichek, R. (1993). Mel-cepstral distance measure for objective speech quality
       assessment. IEEE Pacific Rim Conference on Communications, Computers and Signal Processing.
    """
    from scipy.fft import dct

    cepstra = dct(signatures[:, :N_MELS], norm="ortho", axis=1)[:, 1 : CEPSTRA + 1]
    return np.asarray(_pairwise(cepstra, "euclidean") / np.sqrt(N_MELS))


def chroma_distances(signatures: Array) -> Array:
    """Return the share of the pitch classes' power that would have to move, from 0 to 1.

    The total variation distance of the distributions: 0 the same, 1 no pitch class in common.
    """
    return _pairwise(signatures[:, N_MELS:], "cityblock") / 2


class Distance(NamedTuple):
    """A measure of how far clips are apart: its name for people, its unit, its function.

    The function takes signatures, (clips, N_MELS + 12), and returns distances, (clips, clips).
    """

    label: str
    unit: str
    measure: Callable[[Array], Array]


DISTANCES: Mapping[str, Distance] = MappingProxyType(
    {
        "log_spectral_db": Distance("Log-spectral distance", "dB", log_spectral_distances),
        "mel_cepstral_db": Distance("Mel-cepstral distance", "dB", mel_cepstral_distances),
        "chroma": Distance("Chroma distance", "0 to 1", chroma_distances),
    }
)
"""Every distance by its name."""


def mean_distances(distances: Array, groups: Sequence[int]) -> Array:
    """Return the mean distance between the clips of every two groups.

    Parameters
    ----------
    distances : np.ndarray [shape=(clips, clips)]
    groups : sequence of int [shape=(clips,)]
        The group of each clip, from 0 on.

    Returns
    -------
    np.ndarray [shape=(groups, groups)]
        On the diagonal, the distance between two clips of the group: its diversity. NaN where
        there is no pair of clips that sound.
    """
    count = max(groups, default=-1) + 1
    member = np.zeros((count, len(groups)))
    member[list(groups), np.arange(len(groups))] = 1
    pairs = np.isfinite(distances) & ~np.eye(len(groups), dtype=bool)
    number = member @ pairs @ member.T
    total = member @ np.where(pairs, distances, 0) @ member.T
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _pairwise(rows: Array, metric: str) -> Array:
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(rows, metric))
    np.fill_diagonal(distances, np.where(np.isnan(rows).any(axis=1), np.nan, 0))
    return np.asarray(distances)
