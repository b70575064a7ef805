"""Main effects of the parameters on the features, with intervals and corrected p-values.

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
    repeated measures (`paired`): the seeds, not the clips, are the independent replicates.

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
                    **tested(table, change, missing),
                }
            )
    return conclude(rows, changes, alpha, resamples, seed)


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


def tested(table: SeedTable, change: Array, missing: str) -> dict[str, Any]:
    """Test a table's contrasts and return the columns that every kind of effect has."""
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
