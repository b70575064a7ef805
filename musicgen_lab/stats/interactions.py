"""Whether the effect of one parameter depends on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.contrasts import Residuals
from musicgen_lab.stats.designs import (
    combinations,
    indicators,
    interaction_weights,
    pair_weights,
)
from musicgen_lab.stats.effects import (
    ClipBlock,
    blank,
    clip_blocks,
    conclude,
    contrast_rows,
    why_not,
)

if TYPE_CHECKING:
    import pandas as pd


def interactions(
    frame: pd.DataFrame,
    first: str,
    second: str,
    features: Sequence[str],
    *,
    parameters: Sequence[str] = (),
    alpha: float = 0.05,
    replicate: str = "seed",
) -> pd.DataFrame:
    """Return whether the effect of one parameter depends on another.

    Tested is whether the slope along the one grows or shrinks steadily with the other.

    Parameters
    ----------
    first, second : str
        The two parameters, whose values are numbers.
    parameters : sequence of str
        All columns that are varied, where there are more than the two.
    frame, features, alpha, replicate
        As for `main_effects`.

    Returns
    -------
    pandas.DataFrame
        One row per feature: ``first``, ``second``, ``feature`` and the columns of `main_effects`
        but for the levels compared. ``at_lowest`` and ``at_highest`` are the effect of the first
        parameter, highest level less lowest, at either end of the second; ``change`` is the latter
        less the former, and ``low`` and ``high`` its interval.
    """
    import pandas as pd

    everything = list(dict.fromkeys([first, second, *parameters]))
    by_feature: dict[str, dict[str, Any]] = {}
    for block in clip_blocks(frame, everything, features, replicate):
        by_feature |= _interactions(block, first, second, alpha)
    names = {"first": first, "second": second}
    rows = [names | {"feature": name} | by_feature[name] for name in features]
    unused = ["shape", "from_level", "to_level", "peak"]
    return conclude(pd.DataFrame(rows), alpha).drop(columns=unused, errors="ignore")


def _interactions(
    block: ClipBlock, first: str, second: str, alpha: float
) -> dict[str, dict[str, Any]]:
    """Return the columns of an interaction for every feature of a block of clips."""
    ends = {"at_lowest": np.nan, "at_highest": np.nan}
    note = why_not(block, first, second)
    slope = corners = None
    if not note:
        a, b, others = block.level[first], block.level[second], block.cells(first, second)
        group = combinations([a, b], len(a))
        residuals = Residuals.of(block.clips, indicators(block.cells()), group)
        residuals = residuals.clustered(block.seed)
        kept = ~residuals.too_few[group]
        slope = interaction_weights(a, b, others, kept)
        corners = _corner_weights(a, b, others, kept)
        if slope is None or corners is None:
            note = f"{first} and {second} are not crossed with two clips or more of each"
    if slope is None or corners is None:
        return {name: blank(block, note) | ends for name in block.features}
    tested, stated = residuals.contrast(slope), residuals.contrast(corners[1] - corners[0])
    at_lowest, at_highest = (residuals.contrast(weights).value for weights in corners)
    contrasts = contrast_rows(block, stated, alpha, tested.p_value)
    rows = {}
    for index, (name, row) in enumerate(zip(block.features, contrasts, strict=True)):
        agrees = tested.value[index] * stated.value[index] > 0
        excludes_zero = row["low"] > 0 or row["high"] < 0
        moved = {"at_lowest": float(at_lowest[index]), "at_highest": float(at_highest[index])}
        rows[name] = row | moved | {"supported": bool(agrees and excludes_zero)}
    return rows


def _corner_weights(a: Array, b: Array, others: Array, kept: Array) -> tuple[Array, Array] | None:
    """Weigh clips so that their sums are the effect of the first at either end of the second.

    Only the clips that are kept have a weight.

    Returns
    -------
    two of np.ndarray [shape=(clips,)] or None
        None where no block has all four corners.
    """
    last_a, last_b = int(a.max()), int(b.max())
    corners = [(x, y) for x in (0, last_a) for y in (0, last_b)]
    counts = [
        np.bincount(others[kept & (a == x) & (b == y)], minlength=others.max() + 1)
        for x, y in corners
    ]
    whole = np.min(counts, axis=0) > 0
    if not whole.any():
        return None
    weights = []
    for at in (0, last_b):
        here = kept & whole[others] & (b == at)
        part = np.zeros(len(a))
        pair = pair_weights(a[here], others[here], 0, last_a)
        if pair is None:
            return None
        part[here] = pair
        weights.append(part)
    return weights[0], weights[1]
