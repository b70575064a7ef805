"""What a study shows: spread per cell, effects, interactions and trends, with their certainty.

Frames in, frames out: one row per clip, with columns for the parameters, the replicate (the seed)
and the features. Every question about every feature is a test of its own; the p-values of one
call are corrected together by Holm's method [1]_, which holds whatever the features have to do
with each other: where no parameter has any effect, the chance of even one false claim in the whole
table stays under alpha. With too few seeds nothing is claimed, and `note` says why.

References
----------
.. [1] Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian
   Journal of Statistics 6(2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.intervals import FEWEST, RESAMPLES, mean_intervals
from musicgen_lab.stats.paired import (
    SeedTable,
    contrasts,
    is_ordered,
    repeated_measures_test,
    seed_tables,
)

if TYPE_CHECKING:
    import pandas as pd

CORRECTION = "Holm"
"""How p-values are corrected for the number of questions asked."""


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


def main_effects(
    frame: pd.DataFrame,
    parameters: Sequence[str],
    features: Sequence[str],
    *,
    alpha: float = 0.05,
    replicate: str = "seed",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how much each parameter moves each feature, averaged over the other parameters.

    Each seed's means at the parameter's levels are compared by an analysis of variance for
    repeated measures (`paired`): the seeds, not the clips, are the independent witnesses.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per clip.
    parameters : sequence of str
        All columns that are varied, without the replicate.
    features : sequence of str
        The columns to explain.
    alpha : float
        The chance of any false claim in the whole table.
    replicate : str
        The column that numbers the replicates, the same ones in every cell.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row per parameter and feature, with these columns.

        ``parameter``, ``feature``
        ``levels``, ``seeds``, ``clips``
            How many were compared.
        ``change``
            In the feature's unit: the mean at the highest level minus that at the lowest; for a
            parameter that has no order, the largest mean minus the smallest, never below 0.
        ``low``, ``high``
            Interval of the change at 1 - alpha, over seeds. For a parameter without order it is
            that of the two levels chosen, which are chosen for being far apart.
        ``effect_size``
            Partial eta squared, 0 to 1.
        ``p_value``, ``p_adjusted``
            As it is, and corrected for all rows (Holm).
        ``conclusive``
            Whether ``p_adjusted`` is under alpha.
        ``note``
            Why nothing can be concluded, or which clips were left out; empty when all is well.
    """
    rows = []
    changes: list[Array] = []
    for parameter in parameters:
        others = [name for name in parameters if name != parameter]
        tables = seed_tables(frame, [parameter], features, others=others, replicate=replicate)
        ordered = is_ordered(frame[parameter])
        for feature, table in zip(features, tables, strict=True):
            missing = why_not(table, (parameter,), replicate)
            change = np.empty(0) if missing else _change(table.means, ordered=ordered)
            changes.append(change)
            rows.append(
                {
                    "parameter": parameter,
                    "feature": feature,
                    "levels": len(table.levels[0]),
                    **_tested(table, change, missing),
                }
            )
    return conclude(rows, changes, alpha, resamples, seed)


def interactions(
    frame: pd.DataFrame,
    first: str,
    second: str,
    features: Sequence[str],
    *,
    parameters: Sequence[str] = (),
    alpha: float = 0.05,
    replicate: str = "seed",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return whether the effect of one parameter depends on another.

    Parameters
    ----------
    first, second : str
        The two parameters.
    parameters : sequence of str
        All columns that are varied, where there are more than the two.
    frame, features, alpha, replicate, resamples, seed
        As for `main_effects`.

    Returns
    -------
    pandas.DataFrame
        One row per feature: ``first``, ``second``, ``feature`` and the columns of `main_effects`,
        where ``levels`` counts the combinations. ``at_lowest`` and ``at_highest`` are the effect
        of the first parameter, highest level minus lowest, at either end of the second; ``change``
        is the latter minus the former. All three are NaN where one of the two has no order.
    """
    others = [name for name in parameters if name not in (first, second)]
    tables = seed_tables(frame, [first, second], features, others=others, replicate=replicate)
    ordered = is_ordered(frame[first]) and is_ordered(frame[second])
    rows = []
    changes: list[Array] = []
    for feature, table in zip(features, tables, strict=True):
        missing = why_not(table, (first, second), replicate) or _apart(table)
        moved: Array = np.empty((0, 2))  # by the first parameter, at the ends of the second
        if ordered and not missing:
            moved = np.diff(table.means[:, [0, -1]][:, :, [0, -1]], axis=1)[:, 0]
        change = moved[:, 1] - moved[:, 0]
        changes.append(change)
        at_lowest, at_highest = moved.mean(axis=0) if len(moved) else (np.nan, np.nan)
        names: dict[str, Any] = {"first": first, "second": second, "feature": feature}
        names |= {"levels": math.prod(table.means.shape[1:])}
        names |= {"at_lowest": at_lowest, "at_highest": at_highest}
        rows.append(names | _tested(table, change, missing))
    return conclude(rows, changes, alpha, resamples, seed)


def _apart(table: SeedTable) -> str:
    """Say where two parameters add up but for the last digits of a sound's 32-bit numbers."""
    alone = np.max(np.abs(contrasts(table.means))) <= 1e-6 * np.max(np.abs(table.means))
    return "the effect of each is the same at every value of the other" if alone else ""


def why_not(table: SeedTable, parameters: tuple[str, ...], replicate: str) -> str:
    """Say why a table answers nothing, in a clause; empty when it can be tested."""
    for parameter, levels in zip(parameters, table.levels, strict=True):
        if len(levels) < 2:
            return f"{parameter} has a single value"
    means = table.means
    if len(means) < FEWEST:
        have = f"{len(means)} {replicate}" + ("" if len(means) == 1 else "s")
        at = " and ".join(parameters)
        return f"{have} with a value at every {at}; at least {FEWEST} are needed"
    if np.ptp(means) <= 1e-9 * np.max(np.abs(means)):
        return "the feature is the same in all clips"
    return ""


def _tested(table: SeedTable, change: Array, missing: str) -> dict[str, Any]:
    effect_size, p_value = (
        (np.nan, np.nan) if missing else repeated_measures_test(contrasts(table.means))
    )
    return {
        "seeds": len(table.means),
        "clips": table.clips,
        "change": float(change.mean()) if change.size else np.nan,
        "low": np.nan,
        "high": np.nan,
        "effect_size": effect_size,
        "p_value": p_value,
        "note": missing or left_out(table),
    }


def left_out(table: SeedTable) -> str:
    """Say how many clips a table could not use; empty when it used all."""
    if not table.left_out:
        return ""
    return f"{table.left_out} clips left out: no value, or no counterpart at every level"


def _change(means: Array, *, ordered: bool) -> Array:
    """Return each seed's difference between the two levels that are compared."""
    average = means.mean(axis=0)
    low, high = (0, -1) if ordered else (int(np.argmin(average)), int(np.argmax(average)))
    return means[:, high] - means[:, low]


def conclude(
    rows: Iterable[dict[str, Any]], changes: list[Array], alpha: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Add intervals over the seeds, p-values corrected together, and what can be concluded."""
    import pandas as pd

    table = pd.DataFrame(list(rows))
    if table.empty:
        return table
    sizes = np.array([len(change) for change in changes])
    for n in set(sizes[sizes >= FEWEST]):
        (same,) = np.nonzero(sizes == n)
        low, high = mean_intervals(
            np.stack([changes[row] for row in same]),
            confidence=1 - alpha,
            resamples=resamples,
            seed=seed,
        )
        table.loc[same, "low"], table.loc[same, "high"] = low, high
    adjusted = holm(table["p_value"].to_numpy())
    note = table.pop("note")
    return table.assign(p_adjusted=adjusted, conclusive=adjusted < alpha, note=note)


def holm(p_values: Array) -> Array:
    """Return p-values corrected for their number by Holm's method; NaN is no test and stays."""
    adjusted = np.full(len(p_values), np.nan)
    (tested,) = np.nonzero(np.isfinite(p_values))
    rising = tested[np.argsort(p_values[tested])]
    still_asked = np.arange(len(rising), 0, -1)
    adjusted[rising] = np.minimum(1, np.maximum.accumulate(p_values[rising] * still_asked))
    return adjusted
