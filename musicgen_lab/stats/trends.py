"""Whether a feature rises or falls with a parameter in a design without a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.contrasts import ROUNDING
from musicgen_lab.stats.designs import is_ordered
from musicgen_lab.stats.effects import ALL_SAME, NO_VALUE, conclude
from musicgen_lab.stats.intervals import RESAMPLES, expanded

if TYPE_CHECKING:
    import pandas as pd

FEWEST_POINTS = 10
"""Points that a design must have, for its p-value to hold."""


def trends(
    frame: pd.DataFrame,
    parameters: Sequence[str],
    features: Sequence[str],
    *,
    alpha: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how steadily each feature rises or falls with each parameter.

    Spearman's rank correlation over the points of the design, each being the mean of its seeds:
    for random designs, in which no two clips differ in one parameter alone. Of a grid,
    `effects.main_effects` is more informative.

    Parameters
    ----------
    frame, parameters, features, alpha
        As for `effects.main_effects`. Parameters without an order are passed over.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row per ordered parameter and feature: ``parameter``, ``feature``, ``levels``,
        ``clips``, ``rho`` (-1, falls all the way, to 1), ``low`` and ``high`` (its bootstrap
        interval at 1 - alpha, over points), ``p_value``, ``p_adjusted``, ``supported``,
        ``significant``, ``note``, as in `effects.main_effects`. Empty without parameters.
    """
    import pandas as pd

    if not parameters:
        return pd.DataFrame()
    values = frame[list(features)].astype("Float64").astype(float)
    points = values.groupby([frame[name] for name in parameters], dropna=False)
    by_point = points.mean()
    levels = by_point.index.to_frame(index=False)
    mean = levels.join(by_point.reset_index(drop=True))
    rows = [
        {"parameter": parameter, "feature": feature}
        | _over_points(mean, parameter, feature, alpha, resamples, seed)
        | {"clips": int(values.loc[frame[parameter].notna(), feature].count())}
        for parameter in parameters
        if is_ordered(frame[parameter])
        for feature in features
    ]
    return conclude(pd.DataFrame(rows), alpha)


def _over_points(
    points: pd.DataFrame, parameter: str, feature: str, alpha: float, resamples: int, seed: int
) -> dict[str, Any]:
    from scipy.stats import bootstrap, spearmanr

    points = points[[parameter, feature]].dropna()
    x, y = points[parameter].to_numpy(float), points[feature].to_numpy()
    row = {
        "levels": len(np.unique(x)),
        "clips": 0,
        "rho": np.nan,
        "low": np.nan,
        "high": np.nan,
        "p_value": np.nan,
        "supported": False,
        "note": "",
    }
    if len(y) == 0:
        row["note"] = NO_VALUE
    elif len(y) < FEWEST_POINTS:
        row["note"] = f"{len(y)} points with a value; at least {FEWEST_POINTS} are needed"
    elif np.ptp(y) <= ROUNDING * np.max(np.abs(y)) or np.ptp(x) == 0:
        row["note"] = ALL_SAME
    else:
        correlation = spearmanr(x, y)
        interval = bootstrap(
            (x, y),
            rank_correlation,
            paired=True,
            n_resamples=resamples,
            confidence_level=expanded(1 - alpha, len(y)),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
        row |= {"rho": float(correlation.statistic), "p_value": float(correlation.pvalue)}
        row |= {"low": low, "high": high, "supported": low > 0 or high < 0}
    return row


def rank_correlation(x: Array, y: Array, axis: int = -1) -> Array:
    """Return Spearman's correlation along an axis; 0 where y is the same throughout."""
    from scipy.stats import rankdata

    x, y = (rankdata(values, axis=axis) for values in (x, y))
    x = x - x.mean(axis=axis, keepdims=True)
    y = y - y.mean(axis=axis, keepdims=True)
    scale = np.sqrt(np.sum(x**2, axis=axis) * np.sum(y**2, axis=axis))
    return np.asarray(np.sum(x * y, axis=axis) / np.where(scale > 0, scale, 1))
