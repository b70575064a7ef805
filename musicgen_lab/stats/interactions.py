"""Whether the effect of one parameter depends on another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.effects import conclude, tested, why_not
from musicgen_lab.stats.intervals import RESAMPLES
from musicgen_lab.stats.paired import SeedTable, contrasts, is_ordered, seed_tables

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
        rows.append(names | tested(table, change, missing))
    return conclude(rows, changes, alpha, resamples, seed)


def _apart(table: SeedTable) -> str:
    """Say where two parameters add up but for the last digits of a sound's 32-bit numbers."""
    alone = np.max(np.abs(contrasts(table.means))) <= 1e-6 * np.max(np.abs(table.means))
    return "the effect of each is the same at every value of the other" if alone else ""
