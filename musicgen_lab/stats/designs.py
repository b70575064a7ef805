"""The weights of a study's contrasts: trends, curvature, pairs of levels and interactions.

All are comparisons within blocks: clips that agree in every parameter but those that are looked
at. A block that lacks a level counts with the levels that it has, so that missing clips take no
others along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

if TYPE_CHECKING:
    import pandas as pd


def is_ordered(values: pd.Series[Any]) -> bool:
    """Whether a parameter's values are numbers, so that more and less of it have a meaning."""
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def sorted_levels(values: pd.Series[Any]) -> list[Any]:
    """Return a parameter's values, each once: rising for numbers, else in the order they came."""
    distinct = values.drop_duplicates()
    return list(distinct.sort_values() if is_ordered(values) else distinct)


def level_numbers(values: pd.Series[Any]) -> Array:
    """Return each clip's level, counted from 0 in the order of `sorted_levels`."""
    number = {level: index for index, level in enumerate(sorted_levels(values))}
    return np.asarray(values.map(number).to_numpy(int))


def combinations(columns: Sequence[Array], rows: int) -> Array:
    """Number the combinations of several columns of levels, from 0 on; 0 without columns."""
    if not columns:
        return np.zeros(rows, int)
    _, numbers = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
    return np.asarray(numbers.ravel())


def indicators(numbers: Array) -> Array:
    """Return one column for each number from 0 on, 1 in its rows."""
    return np.asarray(np.eye(int(numbers.max(initial=0)) + 1)[numbers])


def additive_model(columns: Sequence[Array], rows: int) -> Array:
    """Return a model in which every parameter has an effect of its own, and they add up."""
    return np.hstack([np.ones((rows, 1)), *(indicators(column) for column in columns)])


def trend_weights(level: Array, block: Array) -> Array | None:
    """Weigh clips so that their sum is the slope along the levels, per step.

    Returns
    -------
    np.ndarray [shape=(clips,)] or None
        None where no block has two levels.
    """
    weights = centred(level.astype(float), block)
    return _scaled(weights, float(weights @ weights))


def hump_weights(level: Array, block: Array) -> Array | None:
    """Weigh clips so that their sum is how far the middle levels lie above the outer ones.

    The quadratic contrast, scaled to a weighted mean of the middle levels less one of the outer
    ones.

    Returns
    -------
    np.ndarray [shape=(clips,)] or None
        None where no block has three levels.
    """
    linear = centred(level.astype(float), block)
    square = centred(level.astype(float) ** 2, block)
    steepness = linear @ linear
    if steepness <= 1e-9:
        return None
    weights = linear * (linear @ square) / steepness - square
    if weights @ weights <= 1e-9 * (square @ square):
        return None
    return weights / np.sum(weights[weights > 0])


def pair_weights(level: Array, block: Array, low: int, high: int) -> Array | None:
    """Weigh clips so that their sum is the mean at one level less that at another.

    Returns
    -------
    np.ndarray [shape=(clips,)] or None
        None where no block has both.
    """
    blocks = int(block.max(initial=-1)) + 1
    n_low, n_high = (np.bincount(block[level == at], minlength=blocks) for at in (low, high))
    share = n_low * n_high / np.maximum(n_low + n_high, 1)
    if not share.any():
        return None
    share = share / share.sum()
    weights = np.zeros(len(level))
    for at, count, sign in ((low, n_low, -1), (high, n_high, 1)):
        here = level == at
        weights[here] = sign * (share / np.maximum(count, 1))[block[here]]
    return weights


def interaction_weights(first: Array, second: Array, block: Array, kept: Array) -> Array | None:
    """Weigh clips so that their sum is how much the slope along one parameter grows with another.

    Parameters
    ----------
    first, second, block : np.ndarray [shape=(clips,)]
    kept : np.ndarray [shape=(clips,), dtype=bool]
        The others have no weight.

    Returns
    -------
    np.ndarray [shape=(clips,)] or None
        None where the parameters are not crossed.
    """
    first, second, block = first[kept], second[kept], block[kept]
    rows = len(block)
    if rows == 0:
        return None
    alone = np.hstack(
        [indicators(combinations([column, block], rows)) for column in (first, second)]
    )
    product = first.astype(float) * second
    weights = product - alone @ np.linalg.lstsq(alone, product, rcond=None)[0]
    scaled = _scaled(weights, float(weights @ weights))
    if scaled is None:
        return None
    all_weights = np.zeros(len(kept))
    all_weights[kept] = scaled
    return all_weights


def centred(x: Array, block: Array) -> Array:
    """Return numbers less their means over their blocks."""
    count = np.maximum(np.bincount(block), 1)
    return np.asarray(x - (np.bincount(block, x) / count)[block])


def _scaled(weights: Array, by: float) -> Array | None:
    return weights / by if by > 1e-9 else None
