"""Whether a feature rises or falls with a parameter in a design without a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.stats.contrasts import ROUNDING
from musicgen_lab.stats.designs import centred, is_ordered, level_numbers
from musicgen_lab.stats.effects import ALL_SAME, NO_VALUE, conclude, with_permutations

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
    within: str | None = None,
) -> pd.DataFrame:
    """Return how steadily each feature rises or falls with each parameter.

    Spearman's rank correlation over the points of the design, each being the mean of its seeds:
    for random designs, in which no two clips differ in one parameter alone. Of a grid,
    `effects.main_effects` is more informative.

    Parameters
    ----------
    frame, parameters, features, alpha
        As for `effects.main_effects`. Parameters without an order are passed over.
    within : str, optional
        One of the parameters: points are compared with those of the same value alone, such as the
        same prompt. Each further value costs a degree of freedom.

    Returns
    -------
    pandas.DataFrame
        One row per ordered parameter and feature: ``parameter``, ``feature``, ``levels``,
        ``clips``, ``rho`` (-1, falls all the way, to 1), ``low`` and ``high`` (its interval at
        1 - alpha [1]_), ``p_value``, ``p_adjusted``, ``supported``, ``significant``, ``note``, as
        in `effects.main_effects`. Empty without parameters.

    References
    ----------
    .. [1] Bonett, D. G., and Wright, T. A. (2000). Sample size requirements for estimating Pearson,
       Kendall and Spearman correlations. Psychometrika 65(1).
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
        | _over_points(mean, parameter, feature, alpha, within)
        | {"clips": int(values.loc[frame[parameter].notna(), feature].count())}
        for parameter in parameters
        if is_ordered(frame[parameter])
        for feature in features
    ]
    return conclude(pd.DataFrame(rows), alpha)


def _over_points(
    points: pd.DataFrame, parameter: str, feature: str, alpha: float, within: str | None
) -> dict[str, Any]:
    points = points.dropna(subset=[parameter, feature])
    x, y = points[parameter].to_numpy(float), points[feature].to_numpy(float)
    block = level_numbers(points[within]) if within else np.zeros(len(y), int)
    free = len(y) - int(block.max(initial=0))
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
    elif free < FEWEST_POINTS:
        row["note"] = f"{free} points with a value; at least {FEWEST_POINTS} are needed"
    elif np.ptp(y) <= ROUNDING * np.max(np.abs(y)) or np.ptp(x) == 0:
        row["note"] = ALL_SAME
    else:
        rho, p_value, low, high = rank_correlation(x, y, block, alpha)
        row |= {"rho": rho, "low": low, "high": high, "p_value": p_value}
        row["supported"] = low > 0 or high < 0
    return row


def rank_correlation(
    x: Array, y: Array, block: Array, alpha: float
) -> tuple[float, float, float, float]:
    """Return Spearman's correlation within blocks, its p-value, and its interval at 1 - alpha.

    The p-value is that of Student's t, or of permutations within blocks if that is larger: for few
    points the former is too small.
    """
    from scipy.stats import norm, rankdata, t

    x, y = (centred(rankdata(values), block) for values in (x, y))
    scale = float(np.sqrt(np.sum(x**2) * np.sum(y**2)))
    rho = float(x @ y) / scale if scale > 0 else 0.0
    free = len(x) - int(block.max())
    t_value = abs(rho) * np.sqrt((free - 2) / max(1 - rho**2, 1e-12))
    p_values = np.array([2 * t.sf(t_value, free - 2)])
    (p_value,) = with_permutations(p_values, y[:, np.newaxis], x, block, alpha)
    z = np.arctanh(min(abs(rho), 1 - 1e-12)) * np.sign(rho)
    half = norm.isf(alpha / 2) * np.sqrt((1 + rho**2 / 2) / (free - 3))
    return rho, float(p_value), float(np.tanh(z - half)), float(np.tanh(z + half))
