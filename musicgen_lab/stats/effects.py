"""Main effects of the parameters on the features, with intervals and corrected p-values.

Input is a frame with one row per clip and columns for the parameters, the replicate (the seed) and
the features. Every question about every feature is a separate test; the p-values of one
call are corrected together by Holm's method [1]_, which is valid for any dependence between the
features: if no parameter has an effect, the probability of any false claim in the whole table is at
most alpha. `scripts/simulate_claims.py` simulates the actual rates, and the power.

References
----------
.. [1] Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian
   Journal of Statistics 6(2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.formatting import format_value
from musicgen_lab.stats.contrasts import (
    ROUNDING,
    Clips,
    Estimate,
    Residuals,
    permutation_p_values,
)
from musicgen_lab.stats.designs import (
    additive_model,
    combinations,
    hump_weights,
    indicators,
    is_ordered,
    level_numbers,
    pair_weights,
    sorted_levels,
    trend_weights,
)

if TYPE_CHECKING:
    import pandas as pd

Numbers = np.ndarray[Any, Any]

FEWEST_SEEDS = 3
"""With fewer seeds nothing is tested."""

TREND_SHARE = 0.9
"""The share of a question's error rate that is spent on a rise or fall; a hump has the rest.

Rises and falls are the main interest of a sweep; a hump must be clearer to be significant.
"""

NO_VALUE = "no clip has a value"
ALL_SAME = "the feature is the same in all clips"
SAME_LEVELS = "the feature is the same at every level"

COLUMNS = (
    "replicate", "seeds", "clips", "shape", "from_level", "to_level", "peak",
    "change", "low", "high",
    "effect_size", "effect_size_low", "effect_size_high", "p_value",
    "supported",
)  # fmt: skip


def main_effects(
    frame: pd.DataFrame,
    parameters: Sequence[str],
    features: Sequence[str],
    *,
    varied: Sequence[str] = (),
    alpha: float = 0.05,
    replicate: str = "seed",
    by_rater: Array | None = None,
) -> pd.DataFrame:
    """Return the effect of each parameter on each feature, averaged over the other parameters.

    A parameter whose values are numbers is tested for a trend over its levels and for a hump or
    a dip in their middle; any other for a difference between any two of its levels. Levels are
    compared between clips that agree in all other parameters. See `contrasts` for the test.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per clip. Clips with the same ``audio_sha256``, where there is such a column, are
        one recording.
    parameters : sequence of str
        The columns whose effects are tested.
    features : sequence of str
        The columns to explain.
    varied : sequence of str
        The other varied columns, without the replicate, in which compared clips agree.
    alpha : float
        The family-wise error rate of the whole table; the intervals' confidence is 1 - alpha.
    replicate : str
        The column that numbers the replicates.
    by_rater : np.ndarray [shape=(raters, clips)], optional
        For a single feature whose values come from several listeners: by how much each one changes
        them; 0 where the feature has no value. Effects then hold over listeners too.

    Returns
    -------
    pandas.DataFrame
        One row per parameter and feature, with these columns.

        ``parameter``, ``feature``
        ``levels``, ``seeds``, ``clips``
            How many were compared; ``seeds`` counts the values of ``replicate``.
        ``shape``
            "trend", "hump" or "dip" for numbers, "pair" for anything else: what ``change`` is of.
        ``from_level``, ``to_level``, ``peak``
            For a pair, the two levels with the smallest p-value; otherwise the lowest and the
            highest level, and for a hump or dip the level where the feature is highest or lowest.
        ``change``
            In the feature's unit: the mean at ``to_level`` less that at ``from_level``; for a
            hump or a dip, the difference between the middle of the range and its ends.
        ``low``, ``high``
            Interval of the change at 1 - alpha; for a pair one that holds for all pairs at once.
        ``effect_size``, ``effect_size_low``, ``effect_size_high``
            The change and its interval in standard deviations of clips within their cells.
        ``p_value``, ``p_adjusted``
            Uncorrected, and corrected for all rows (Holm).
        ``supported``
            Whether the interval supports a claim; see `significant`.
        ``significant``
            Whether ``p_adjusted`` is under alpha and, for a trend, the interval of the change from
            the lowest to the highest level excludes 0 in the trend's direction.
        ``note``
            Why there is no test; empty if there is one.
    """
    import pandas as pd

    blocks = list(clip_blocks(frame, [*parameters, *varied], features, replicate))
    rows = []
    for parameter in parameters:
        ordered = is_ordered(frame[parameter])
        by_feature: dict[str, dict[str, Any]] = {}
        for block in blocks:
            by_feature |= _effects(block, parameter, by_rater, ordered=ordered, alpha=alpha)
        rows += [
            {"parameter": parameter, "feature": name, "levels": frame[parameter].nunique()}
            | by_feature[name]
            for name in features
        ]
    return conclude(pd.DataFrame(rows), alpha)


@dataclass(frozen=True, eq=False)
class ClipBlock:
    """The clips of a study on which several features have a value, the same ones for all.

    Attributes
    ----------
    features : tuple of str
    rows : np.ndarray [shape=(clips,)]
        Their numbers in the whole frame.
    frame : pandas.DataFrame
        The clips.
    clips : Clips
        Their values and recordings.
    level : Mapping of str to np.ndarray
        The level of every parameter, counted from 0 among those that are left.
    seed : np.ndarray [shape=(clips,)]
        Number of the replicate.
    sd : np.ndarray [shape=(features,)]
        Standard deviation of clips within their cells.
    replicate : str
        The column that numbers the replicates.
    """

    features: tuple[str, ...]
    rows: np.ndarray
    frame: pd.DataFrame
    clips: Clips
    level: dict[str, Array]
    seed: Array
    sd: Array
    replicate: str

    @property
    def seeds(self) -> int:
        """How many replicates there are."""
        return int(self.seed.max(initial=-1)) + 1

    def levels_of(self, names: Sequence[str]) -> list[Array]:
        """Return the levels of several parameters."""
        return [self.level[name] for name in names]

    def cells(self, *without: str) -> Array:
        """Number the combinations of all parameters but some."""
        kept = [column for name, column in self.level.items() if name not in without]
        return combinations(kept, len(self.frame))


def clip_blocks(
    frame: pd.DataFrame, parameters: Sequence[str], features: Sequence[str], replicate: str
) -> Iterator[ClipBlock]:
    """Yield the clips that have a value, with all the features that have one on just these."""
    values = frame[list(features)].astype("Float64").astype(float).to_numpy()
    finite = np.isfinite(values)
    digests: list[Hashable] = list(range(len(frame)))
    if "audio_sha256" in frame:
        digests = [
            index if digest is None or digest != digest else digest
            for index, digest in enumerate(frame["audio_sha256"])
        ]
    masks, mask_of = np.unique(finite, axis=1, return_inverse=True)
    for number, mask in enumerate(masks.T):
        rows, columns = np.flatnonzero(mask), np.flatnonzero(mask_of.ravel() == number)
        kept = frame.iloc[rows]
        clips = Clips.of(values[np.ix_(rows, columns)], [digests[row] for row in rows])
        level = {name: level_numbers(kept[name]) for name in parameters}
        seed = level_numbers(kept[replicate])
        sd = np.full(len(columns), np.nan)
        if len(rows):
            cell = combinations(list(level.values()), len(rows))
            within = Residuals.of(clips, indicators(cell), np.zeros(len(rows), int))
            sd = np.sqrt(within.variance[0]) if within.df[0, 0] > 0 else sd
        yield ClipBlock(
            tuple(features[int(column)] for column in columns),
            rows,
            kept,
            clips,
            level,
            seed,
            sd,
            replicate,
        )


def why_not(block: ClipBlock, *parameters: str) -> str:
    """Say why a question about parameters cannot be tested, in a clause; empty when it can."""
    if not len(block.frame):
        return NO_VALUE
    for parameter in parameters:
        if block.level[parameter].max() == 0:
            return f"all clips with a value have the same {parameter}"
    if block.seeds < FEWEST_SEEDS:
        seeds = f"{block.seeds} {replicates(block.replicate, block.seeds)}"
        return f"{seeds} of each setting, and at least {FEWEST_SEEDS} are needed"
    return ""


def replicates(replicate: str, count: int = 2) -> str:
    """Return the noun for so many replicates, such as "seeds"."""
    return {"begin_with": "source"}.get(replicate, replicate) + "s" * (count != 1)


def why_untested(values: Array, difference: float, replicate: str = "seed") -> str:
    """Say why a contrast of a feature's values has no p-value."""
    if np.ptp(values) <= ROUNDING * np.max(np.abs(values)):
        return ALL_SAME
    if difference == 0:
        return SAME_LEVELS
    varied = replicates(replicate)
    return f"the feature does not vary between {varied}, so chance cannot be judged"


def blank(block: ClipBlock, note: str) -> dict[str, Any]:
    """Return the columns of a question that was not tested."""
    empty: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
    return empty | {
        "replicate": block.replicate,
        "seeds": block.seeds,
        "clips": len(block.frame),
        "shape": "",
        "from_level": None,
        "to_level": None,
        "peak": None,
        "supported": False,
        "note": note,
    }


def _effects(
    block: ClipBlock, parameter: str, by_rater: Array | None, *, ordered: bool, alpha: float
) -> dict[str, dict[str, Any]]:
    """Return the columns of a parameter's effect on every feature of a block."""
    note = why_not(block, parameter)
    if note:
        return {name: blank(block, note) for name in block.features}
    level, others = block.level[parameter], block.cells(parameter)
    model = additive_model(list(block.level.values()), len(level))
    if by_rater is not None:
        by_rater = by_rater[:, block.rows]
    residuals = Residuals.of(block.clips, model, level, by_rater).clustered(block.seed)
    levels = sorted_levels(block.frame[parameter])
    few = [at for at, too_few in zip(levels, residuals.too_few, strict=True) if too_few]
    if few and (ordered or len(levels) - len(few) < 2):
        value = format_value(parameter, few[0])
        note = (
            f"too few different clips with a value have {parameter} {value} to judge chance there"
        )
        return {name: blank(block, note) for name in block.features}
    judge = judge_ordered if ordered else judge_unordered
    judged = judge(residuals, level, others, alpha)
    if judged is None:
        note = (
            "no two clips differ in it alone" + ordered * ", from its lowest to its highest value"
        )
        return {name: blank(block, note) for name in block.features}
    contrasts = contrast_rows(block, judged.estimate, judged.alpha, judged.p_value)
    rows = {}
    for index, (name, row) in enumerate(zip(block.features, contrasts, strict=True)):
        peak = int(judged.peak[index])
        rows[name] = row | {
            "shape": judged.shape[index],
            "from_level": levels[judged.from_level[index]],
            "to_level": levels[judged.to_level[index]],
            "peak": levels[peak] if peak >= 0 else None,
            "supported": bool(judged.supported[index]),
        }
    return rows


@dataclass(frozen=True, eq=False)
class Judged:
    """What is said of a parameter's levels, for several features; all arrays have one value each.

    Attributes
    ----------
    estimate : Estimate
        Of the contrast that is stated.
    alpha : float
        One less the confidence of its interval.
    p_value : np.ndarray
        Of the whole question; NaN where there is no test.
    shape : np.ndarray
        "trend", "hump", "dip" or "pair".
    from_level, to_level, peak : np.ndarray
        Numbers of levels; -1 where there is no peak.
    supported : np.ndarray
        Whether the interval of the contrast allows the claim.
    """

    estimate: Estimate
    alpha: float
    p_value: Array
    shape: Array
    from_level: Array
    to_level: Array
    peak: Array
    supported: Array


def judge_ordered(residuals: Residuals, level: Array, others: Array, alpha: float) -> Judged | None:
    """Test levels that have an order for a trend, and for a hump or a dip.

    Parameters
    ----------
    residuals : Residuals
    level, others : np.ndarray [shape=(clips,)]
        Number of the level, and of the combination of all other parameters.
    alpha : float

    Returns
    -------
    Judged or None
        None where the lowest and the highest level cannot be compared.
    """
    last = int(level.max())
    end_weights, weights = pair_weights(level, others, 0, last), trend_weights(level, others)
    if end_weights is None or weights is None:
        return None
    ends, trend = residuals.contrast(end_weights), residuals.contrast(weights)
    low, high = ends.interval(alpha)
    values, features = residuals.clips.values, len(trend.value)
    judged = Judged(
        estimate=ends,
        alpha=alpha,
        p_value=with_permutations(trend.p_value, values, weights, others, alpha),
        shape=np.full(features, "trend"),
        from_level=np.zeros(features, int),
        to_level=np.full(features, last),
        peak=np.full(features, -1),
        supported=(np.sign(ends.value) == np.sign(trend.value)) & ((low > 0) | (high < 0)),
    )
    return _or_hump(judged, residuals, level, others, alpha)


def _or_hump(
    judged: Judged, residuals: Residuals, level: Array, others: Array, alpha: float
) -> Judged:
    """Test for a hump or a dip too, and state it where it is surer than the trend."""
    weights = hump_weights(level, others)
    if weights is None:
        return judged
    hump = residuals.contrast(weights)
    values, last = residuals.clips.values, int(level.max())
    p_hump = with_permutations(hump.p_value, values, weights, others, alpha) / (1 - TREND_SHARE)
    heights = np.zeros((last + 1, values.shape[1]))
    for at in range(1, last + 1):
        weights = pair_weights(level, others, 0, at)
        heights[at] = np.nan if weights is None else weights @ values
    peak = np.where(hump.value > 0, np.nanargmax(heights, 0), np.nanargmin(heights, 0))
    inside = (peak > 0) & (peak < last)
    p_trend = np.minimum(1, judged.p_value / TREND_SHARE)
    p_hump = np.where(inside, np.minimum(1, p_hump), np.nan)
    surer = p_hump < p_trend
    stated = (
        np.where(surer, getattr(hump, name), getattr(judged.estimate, name))
        for name in ("value", "se", "df")
    )
    return replace(
        judged,
        estimate=Estimate(*stated),
        p_value=np.where(surer, p_hump, p_trend),
        shape=np.where(surer, np.where(hump.value > 0, "hump", "dip"), "trend"),
        peak=np.where(surer, peak, -1),
        supported=surer | judged.supported,
    )


def with_permutations(
    p_values: Array, values: Array, weights: Array, block: Array, alpha: float
) -> Array:
    """Return p-values of a contrast that are no smaller than the permutation test's.

    Those from alpha on stay as they are: nothing is claimed of them in any case.
    """
    judged = p_values.copy()
    (small,) = np.nonzero(p_values < alpha)
    if small.size:
        permuted = permutation_p_values(values[:, small], weights, block)
        judged[small] = np.maximum(p_values[small], permuted)
    return judged


def judge_unordered(
    residuals: Residuals, level: Array, others: Array, alpha: float
) -> Judged | None:
    """Test levels that have no order for a difference between any two of them.

    The pair with the smallest p-value is reported; its p-value and its interval hold for all pairs
    at once, by Šidák's inequality [1]_. Parameters are those of `judge_ordered`; None where no
    two levels can be compared.

    References
    ----------
    .. [1] Dunnett, C. W. (1980). Pairwise multiple comparisons in the unequal variance case.
       Journal of the American Statistical Association 75.
    """
    pairs, estimates, weighted = [], [], []
    for pair in itertools.combinations(range(int(level.max()) + 1), 2):
        weights = pair_weights(level, others, *pair)
        if weights is not None:
            pairs.append(pair)
            weighted.append(weights)
            estimates.append(residuals.contrast(weights))
    if not pairs:
        return None
    p_values = np.array([estimate.p_value for estimate in estimates])
    tested = np.isfinite(p_values).any(axis=0)
    p_values = np.where(np.isfinite(p_values), p_values, 2)

    def permuted(pair: int, features: Numbers) -> Array:
        clips = np.isin(level, pairs[pair])  # the other levels may differ
        values = residuals.clips.values[np.ix_(clips, features)]
        weights, block = weighted[pair][clips], others[clips]
        return with_permutations(p_values[pair, features], values, weights, block, alpha)

    surest = _surest(p_values, permuted)
    value, se, df, p_value = (
        np.take_along_axis(np.array(rows), surest[np.newaxis], axis=0)[0]
        for rows in (
            [estimate.value for estimate in estimates],
            [estimate.se for estimate in estimates],
            [estimate.df for estimate in estimates],
            p_values,
        )
    )
    low, high = np.array(pairs)[surest].T
    falls = value < 0
    one_less = np.log1p(-np.minimum(p_value, 1 - 1e-16))
    return Judged(
        estimate=Estimate(np.abs(value), se, df),
        alpha=float(-np.expm1(np.log1p(-alpha) / len(pairs))),
        p_value=np.where(tested, -np.expm1(len(pairs) * one_less), np.nan),
        shape=np.full(len(value), "pair"),
        from_level=np.where(falls, high, low),
        to_level=np.where(falls, low, high),
        peak=np.full(len(value), -1),
        supported=tested,
    )


def _surest(p_values: Array, permuted: Callable[[int, Numbers], Array]) -> Numbers:
    """Return the pair with the smallest p-value of each feature.

    Parameters
    ----------
    p_values : np.ndarray [shape=(pairs, features)]
        Raised in place to those of permutations, which take long and are computed where a pair
        would otherwise have the smallest.
    permuted : callable
        Returns the p-values of a pair, by permutations too, for some of the features.
    """
    features = np.arange(p_values.shape[1])
    done = np.zeros(p_values.shape, bool)
    while True:
        surest: Numbers = np.argmin(p_values, axis=0)
        left = ~done[surest, features]
        if not left.any():
            return surest
        for pair in np.unique(surest[left]):
            (columns,) = np.nonzero(left & (surest == pair))
            p_values[pair, columns] = permuted(int(pair), columns)
            done[pair, columns] = True


def contrast_rows(
    block: ClipBlock, estimate: Estimate, alpha: float, p_values: Array
) -> list[dict[str, Any]]:
    """Return the columns that every contrast has, for each feature of a block."""
    tested = np.isfinite(p_values)
    if tested.any():
        low, high = estimate.interval(alpha)
        size, size_low, size_high = estimate.effect_size(block.sd, alpha)
    rows = []
    for index, value in enumerate(estimate.value):
        if not tested[index]:
            values = block.clips.values[:, index]
            rows.append(blank(block, why_untested(values, float(value), block.replicate)))
            continue
        rows.append(
            {
                "replicate": block.replicate,
                "seeds": block.seeds,
                "clips": len(block.frame),
                "change": float(value),
                "low": float(low[index]),
                "high": float(high[index]),
                "effect_size": float(size[index]),
                "effect_size_low": float(size_low[index]),
                "effect_size_high": float(size_high[index]),
                "p_value": float(p_values[index]),
                "note": "",
            }
        )
    return rows


def conclude(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Add p-values that are corrected together, and what is significant."""
    if table.empty:
        return table
    note = table.pop("note")
    return with_claims(table, holm(table["p_value"].to_numpy(float)), alpha).assign(note=note)


def with_claims(table: pd.DataFrame, adjusted: Array, alpha: float) -> pd.DataFrame:
    """Return a table with its corrected p-values, and what is significant by them."""
    supported = table["supported"].astype(bool)
    return table.assign(p_adjusted=adjusted, significant=(adjusted < alpha) & supported)


def holm(p_values: Array) -> Array:
    """Return p-values corrected for their number by Holm's method; NaN is no test and stays."""
    adjusted = np.full(len(p_values), np.nan)
    (tested,) = np.nonzero(np.isfinite(p_values))
    rising = tested[np.argsort(p_values[tested])]
    still_tested = np.arange(len(rising), 0, -1)
    adjusted[rising] = np.minimum(1, np.maximum.accumulate(p_values[rising] * still_tested))
    return adjusted
