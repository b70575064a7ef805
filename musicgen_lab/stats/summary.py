"""A feature's mean and spread over the seeds of every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.stats.intervals import FEWEST, RESAMPLES, mean_intervals

if TYPE_CHECKING:
    import pandas as pd


def summarise(
    frame: pd.DataFrame,
    by: Sequence[str],
    feature: str,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a feature's mean and spread in every cell.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per clip.
    by : sequence of str
        The columns whose combinations are the cells; the clips of a cell differ in their seed.
    feature : str
        The column to describe. Clips without a value are not counted.
    confidence : float
        Of the interval.
    resamples, seed : int
        Of the bootstrap (`intervals.mean_intervals`).

    Returns
    -------
    pandas.DataFrame
        One row per cell, in the order of first appearance: the columns of `by`, `mean`, `sd` (NaN
        under two clips), `n`, `low` and `high`, the interval of the mean (NaN under three clips).
    """
    values_of = frame[feature].astype("Float64").astype(float)
    cells = (
        frame[list(by)]
        .assign(**{feature: values_of})
        .groupby(list(by), sort=False, dropna=False)[feature]
    )
    summary = cells.agg(mean="mean", sd="std", n="count").reset_index()
    low, high = (np.full(len(summary), np.nan) for _ in range(2))
    values = [group.dropna().to_numpy() for _, group in cells]
    for n in {len(cell) for cell in values if len(cell) >= FEWEST}:
        rows = [row for row, cell in enumerate(values) if len(cell) == n]
        low[rows], high[rows] = mean_intervals(
            np.stack([values[row] for row in rows]),
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
    return summary.assign(low=low, high=high)
