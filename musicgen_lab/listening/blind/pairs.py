"""Which two clips to compare next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.bradley_terry import Design


def candidate_pairs(prompts: Sequence[object]) -> Array:
    """Return every two clips of the same prompt.

    Clips of one cell are candidates too. So the choice of a pair knows nothing of the parameters,
    and where these have no effect, clips are exchangeable: the test of an effect rests on that.

    Parameters
    ----------
    prompts : sequence [shape=(clips,)]

    Returns
    -------
    np.ndarray [shape=(pairs, 2), dtype=int]
    """
    pairs = itertools.combinations(range(len(prompts)), 2)
    alike = [pair for pair in pairs if prompts[pair[0]] == prompts[pair[1]]]
    return np.array(alike, int).reshape(-1, 2)


def choose_pair(candidates: Array, design: Design, rng: np.random.Generator) -> Array:
    """Return the candidate whose answer is expected to tell most (`Design.information`).

    Parameters
    ----------
    candidates : np.ndarray [shape=(pairs, 2), dtype=int]
    design : Design
        The comparisons so far.
    rng : np.random.Generator
        Decides between equally informative ones.

    Returns
    -------
    np.ndarray [shape=(2,), dtype=int]
    """
    information = design.information(candidates)
    best = np.flatnonzero(information >= information.max() * (1 - 1e-9))
    return np.asarray(candidates[rng.choice(best)])
