"""Whether a feature rises or falls with a parameter, whatever the shape of the rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.effects import conclude, left_out, why_not
from musicgen_lab.stats.intervals import FEWEST, RESAMPLES, expanded
from musicgen_lab.stats.paired import SeedTable, is_ordered, seed_tables

if TYPE_CHECKING:
    import pandas as pd

FEWEST_POINTS = 10
"""Points that a design without a grid must have, for its p-value to hold."""


def trends(
    frame: pd.DataFrame,
    parameters: Sequence[str],
    features: Sequence[str],
    *,
    alpha: float = 0.05,
    replicate: str = "seed",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how steadily each feature rises or falls with each parameter.

    On a grid, Spearman's rank correlation of the levels with a seed's means at them, averaged over
    the seeds, and Page's test of it [1]_, which counts seeds and not clips. In a design without a
    grid, where no two clips differ in one parameter alone or a single one is drawn at ten values or
    more with few seeds, Spearman's correlation over the points, each being the mean of its seeds.

    Parameters
    ----------
    frame, parameters, features, alpha, replicate, resamples, seed
        As for `statistics.main_effects`. Parameters without an order are passed over.

    Returns
    -------
    pandas.DataFrame
        One row per ordered parameter and feature: ``parameter``, ``feature``, ``levels``,
        ``seeds`` (0 without a grid), ``clips``, ``rho`` (-1, falls all the way, to 1), ``low`` and
        ``high`` (its bootstrap interval at 1 - alpha, over seeds or points), ``p_value``,
        ``p_adjusted``, ``conclusive``, ``note``, as in `statistics.main_effects`.

    References
    ----------
    .. [1] Page, E. B. (1963). Ordered hypotheses for multiple treatments: a significance test for
       linear ranks. Journal of the American Statistical Association 58.
    """
    rows: list[dict[str, Any]] = []
    changes: list[Array] = []
    for parameter in parameters:
        if not is_ordered(frame[parameter]):
            continue
        others = [name for name in parameters if name != parameter]
        if _on_grid(frame, parameter, others, replicate):
            tables = seed_tables(frame, [parameter], features, others=others, replicate=replicate)
            for feature, table in zip(features, tables, strict=True):
                row, by_seed = _over_seeds(table, parameter, replicate)
                rows.append({"parameter": parameter, "feature": feature, **row})
                changes.append(by_seed)
        else:
            values = frame[list(features)].astype("Float64").astype(float)
            points = values.groupby([frame[name] for name in parameters], dropna=False)
            by_point, count = points.mean(), points.count().sum()
            levels = by_point.index.to_frame(index=False)
            mean = levels.join(by_point.reset_index(drop=True))
            for feature in features:
                row = _over_points(mean, parameter, feature, alpha, resamples, seed)
                row["clips"] = int(count[feature])
                rows.append({"parameter": parameter, "feature": feature, **row})
                changes.append(np.empty(0))
    return conclude(rows, changes, alpha, resamples, seed)


def _on_grid(frame: pd.DataFrame, parameter: str, others: list[str], replicate: str) -> bool:
    """Whether seeds can be compared at one parameter's levels, all else being equal."""
    alike = frame.groupby([replicate, *others], dropna=False)[parameter].nunique()
    drawn = not others and alike.max() >= FEWEST_POINTS and len(alike) < FEWEST
    return bool((alike > 1).any()) and not drawn


def _over_seeds(table: SeedTable, parameter: str, replicate: str) -> tuple[dict[str, Any], Array]:
    from scipy.stats import page_trend_test

    missing = why_not(table, (parameter,), replicate)
    row = {
        "levels": len(table.levels[0]),
        "seeds": len(table.means),
        "clips": table.clips,
        "rho": np.nan,
        "low": np.nan,
        "high": np.nan,
        "p_value": np.nan,
        "note": missing or left_out(table),
    }
    if not missing and len(table.levels[0]) < 3:
        row["note"] = missing = "two levels have no trend beside their difference: see the effects"
    if missing:
        return row, np.empty(0)
    rho = rank_correlation(np.arange(len(table.levels[0]), dtype=float), table.means)
    one_sided = [page_trend_test(sign * table.means).pvalue for sign in (1, -1)]
    row |= {"rho": float(rho.mean()), "p_value": min(1.0, 2 * min(one_sided))}
    return row, rho


def _over_points(
    points: pd.DataFrame, parameter: str, feature: str, alpha: float, resamples: int, seed: int
) -> dict[str, Any]:
    from scipy.stats import bootstrap, spearmanr

    points = points[[parameter, feature]].dropna()
    x, y = points[parameter].to_numpy(float), points[feature].to_numpy()
    row = {
        "levels": len(np.unique(x)),
        "seeds": 0,
        "clips": 0,
        "rho": np.nan,
        "low": np.nan,
        "high": np.nan,
        "p_value": np.nan,
        "note": "",
    }
    if len(y) < FEWEST_POINTS:
        row["note"] = f"{len(y)} points with a value; at least {FEWEST_POINTS} are needed"
    elif np.ptp(y) <= 1e-9 * np.max(np.abs(y)) or np.ptp(x) == 0:
        row["note"] = "the feature is the same in all clips"
    else:
        found = spearmanr(x, y)
        interval = bootstrap(
            (x, y),
            rank_correlation,
            paired=True,
            n_resamples=resamples,
            confidence_level=expanded(1 - alpha, len(y)),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        row |= {"rho": float(found.statistic), "p_value": float(found.pvalue)}
        row |= {"low": float(interval.low), "high": float(interval.high)}
    return row


def rank_correlation(x: Array, y: Array, axis: int = -1) -> Array:
    """Return Spearman's correlation along an axis; 0 where y is the same throughout."""
    from scipy.stats import rankdata

    x, y = (rankdata(values, axis=axis) for values in (x, y))
    x = x - x.mean(axis=axis, keepdims=True)
    y = y - y.mean(axis=axis, keepdims=True)
    scale = np.sqrt(np.sum(x**2, axis=axis) * np.sum(y**2, axis=axis))
    return np.asarray(np.sum(x * y, axis=axis) / np.where(scale > 0, scale, 1))
