"""Contrasts between the clips of a study, each group of clips with a variance of its own.

A contrast is a weighted sum of clips, such as "the mean at the highest temperature less that at
the lowest, all else being equal". Its standard error comes from the residuals of a linear model:
those of each group (a level of the parameter, or a cell) give the variance of that group, so that
a level which scatters more than others neither hides nor feigns an effect. Student's t with
Satterthwaite's degrees of freedom [1]_ judges it, taken at a lower confidence limit, as a variance
of few clips is easily estimated far too small. `permutation_p_values` judges it without any
assumption on the values' distribution. The same recording counts once, in however many cells it is.

References
----------
.. [1] Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance
   components. Biometrics Bulletin 2(6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

ROUNDING = 1e-6
"""Differences under this share of the largest value are rounding of 32-bit samples, and are 0."""

UNDERESTIMATE = 0.2
"""How likely a group's variance is to be smaller, against the true one, than is allowed for."""


LEAST_DF = 0.1
"""A group with fewer degrees of freedom has none of its own."""

PERMUTATIONS = 9_999

T_LARGEST = 1000.0
"""Beyond it the noncentrality's interval is in proportion to t; SciPy's is slow and wrong there."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One contrast of several features.

    Attributes
    ----------
    value, se : np.ndarray [shape=(features,)]
        In the features' units. ``se`` is 0 where nothing scatters, and NaN where a group has too
        few clips to say how much it does.
    df : np.ndarray [shape=(features,)]
        Degrees of freedom of ``se``.
    """

    value: Array
    se: Array
    df: Array

    @property
    def t(self) -> Array:
        """Student's t; NaN where nothing scatters and there is no test."""
        safe = np.where(self.se > 0, self.se, np.nan)
        return np.asarray(self.value / safe)

    @property
    def p_value(self) -> Array:
        """Two-sided; NaN where there is no test."""
        from scipy.stats import t

        return np.asarray(2 * t.sf(np.abs(self.t), self.df))

    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the interval at 1 - alpha; NaN where there is no test."""
        from scipy.stats import t

        half = np.where(self.se > 0, self.se * t.isf(alpha / 2, self.df), np.nan)
        return self.value - half, self.value + half

    def effect_size(self, sd: Array, alpha: float) -> tuple[Array, Array, Array]:
        """Return the contrast in standard deviations, and its interval (noncentral t) [1]_.

        Parameters
        ----------
        sd : np.ndarray [shape=(features,)]
            Of a clip within its cell.
        alpha : float
            One less the confidence of the interval.

        References
        ----------
        .. [1] Steiger, J. H., and Fouladi, R. T. (1997). Noncentrality interval estimation and the
           evaluation of statistical models. In: What If There Were No Significance Tests?
        """
        from scipy.special import nctdtrinc

        unit = np.where(sd > 0, self.se / np.where(sd > 0, sd, 1), np.nan)
        near = np.clip(self.t, -T_LARGEST, T_LARGEST)
        scale = unit * np.maximum(1, np.abs(self.t) / T_LARGEST)
        low, high = (nctdtrinc(self.df, tail, near) * scale for tail in (1 - alpha / 2, alpha / 2))
        return self.t * unit, low, high


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a study that have a value, with every recording once.

    Attributes
    ----------
    values : np.ndarray [shape=(clips, features)]
        Without NaN.
    recording : np.ndarray [shape=(clips,)]
        Numbers from 0 on, the same for clips with the same samples.
    first : np.ndarray [shape=(recordings,)]
        The first clip that each recording is.
    """

    values: Array
    recording: Array
    first: Array

    @classmethod
    def of(cls, values: Array, digests: Sequence[object]) -> Clips:
        """Number the recordings of clips.

        Parameters
        ----------
        values : np.ndarray [shape=(clips, features)]
        digests : sequence [shape=(clips,)]
            Equal for clips with the same samples.
        """
        number: dict[object, int] = {}
        recording = np.array([number.setdefault(d, len(number)) for d in digests], int)
        first = np.zeros(len(number), int)
        first[recording[::-1]] = np.arange(len(recording))[::-1]
        return cls(values, recording, first)


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a linear model leaves of the recordings, in groups that scatter alike.

    Attributes
    ----------
    clips : Clips
    group : np.ndarray [shape=(recordings,)]
        Counted from 0.
    residuals : np.ndarray [shape=(recordings, features)]
    df : np.ndarray [shape=(groups, 1) or (groups, features)]
        Of each group's variance; 0 for a group that the model leaves no freedom.
    by_rater : np.ndarray [shape=(raters, clips)], optional
        For values that come from several listeners, who are a sample too: by how much each one
        changes them. See `contrast`.
    rater_variance : np.ndarray [shape=(groups,)], optional
        What remains of those changes, as ``variance`` is of the values.
    """

    clips: Clips
    group: Array
    residuals: Array
    df: Array
    by_rater: Array | None = None
    rater_variance: Array | None = None

    @classmethod
    def of(
        cls, clips: Clips, model: Array, group: Array, by_rater: Array | None = None
    ) -> Residuals:
        """Fit a model by least squares.

        Parameters
        ----------
        clips : Clips
        model : np.ndarray [shape=(clips, columns)]
            The model's columns, which may depend on each other.
        group : np.ndarray [shape=(clips,)]
            Counted from 0.
        by_rater : np.ndarray [shape=(raters, clips)], optional
        """
        groups = int(group.max(initial=-1)) + 1
        values, group = clips.values[clips.first], group[clips.first]
        left, strengths, _ = np.linalg.svd(model[clips.first], full_matrices=False)
        basis = left[:, strengths > 1e-9 * strengths[0]]
        residuals = values - basis @ (basis.T @ values)
        scale = np.max(np.abs(values), axis=0, initial=0.0)
        residuals[np.abs(residuals) <= ROUNDING * scale] = 0
        df: Array = np.bincount(group, 1 - np.sum(basis**2, axis=1), groups).astype(float)
        df = np.where(df > LEAST_DF, df, 0.0)[:, np.newaxis]
        if by_rater is None:
            return cls(clips, group, residuals, df)
        changes = by_rater[:, clips.first].T
        left_over = _sums((changes - basis @ (basis.T @ changes)) ** 2, group, groups)
        rater_variance = _variance(left_over.sum(axis=1, keepdims=True), df)[:, 0]
        return cls(clips, group, residuals, df, by_rater, rater_variance)

    def clustered(self, replicate: Array) -> Residuals:
        """Allow for clips of one seed that are more alike than others of the same group.

        Parameters
        ----------
        replicate : np.ndarray [shape=(clips,)]
            Numbers of the seeds.
        """
        factor = inflation(self.residuals, self.group, replicate[self.clips.first])
        return replace(self, df=effective_df(self.df, factor))

    @property
    def too_few(self) -> np.ndarray[Any, Any]:
        """Whether a group has too few recordings to say how much they scatter, [shape=(groups,)].

        One whose recordings are all in other groups too has none of its own, and is not one of
        these.
        """
        recordings = np.bincount(self.group, minlength=len(self.df))
        return np.asarray((recordings > 0) & (self.df == 0).any(axis=1))

    @cached_property
    def variance(self) -> Array:
        """Of a recording of each group, [shape=(groups, features)].

        0 for a group that the model leaves no freedom. For a feature with two values, at least that
        of all groups together: few clips of a group easily agree.
        """
        squares = _sums(self.residuals**2, self.group, len(self.df))
        variance = _variance(squares, self.df)
        values = self.clips.values[self.clips.first]
        two_values = ((values == values.min(axis=0)) | (values == values.max(axis=0))).all(axis=0)
        pooled = _variance(squares.sum(axis=0, keepdims=True), self.df.sum(axis=0, keepdims=True))
        return np.where(two_values, np.maximum(variance, pooled), variance)

    def contrast(self, weights: Array) -> Estimate:
        """Estimate a contrast.

        Where values come from several listeners, its variance is that between clips and that
        between listeners, less what is in both, as for errors that are clustered in two ways [1]_;
        at least that between clips. The variance between listeners is that of the jackknife [2]_:
        each of few listeners draws the values towards their own answers, so that what they differ
        from them by is too small.

        Parameters
        ----------
        weights : np.ndarray [shape=(clips,)]
            Summing to 0.

        References
        ----------
        .. [1] Cameron, A. C., Gelbach, J. B., and Miller, D. L. (2011). Robust inference with
           multiway clustering. Journal of Business & Economic Statistics 29(2).
        .. [2] Bell, R. M., and McCaffrey, D. F. (2002). Bias reduction in standard errors for
           linear regression with multi-stage samples. Survey Methodology 28(2).
        """
        merged = np.bincount(self.clips.recording, weights)
        values = self.clips.values[self.clips.first]
        value = merged @ values
        scale = np.max(np.abs(values), axis=0, initial=0.0) * np.sum(np.abs(merged))
        value = np.where(np.abs(value) <= ROUNDING * scale, 0.0, value)
        squared = np.bincount(self.group, merged**2, minlength=len(self.df))
        squared[squared <= 1e-12 * np.sum(weights**2)] = 0
        parts = squared[:, np.newaxis] * self.variance
        between_clips, between_raters, rater_df = parts.sum(axis=0), 0.0, 1
        if self.by_rater is not None and self.rater_variance is not None:
            rater_df = len(self.by_rater) - 1
            jackknife = rater_df / len(self.by_rater)
            between_raters = jackknife * float(np.sum((self.by_rater @ weights) ** 2))
            both = jackknife * squared * self.rater_variance
            parts = np.maximum(parts - both[:, np.newaxis], 0)
        parts = np.vstack([parts, np.full(len(value), between_raters)])
        df = np.vstack([self.df, np.full(self.df.shape[1], rater_df)])
        variance = np.maximum(between_clips, parts.sum(axis=0))
        unknown = ((squared[:, np.newaxis] > 0) & (self.df == 0)).any(axis=0)
        se = np.where(unknown, np.nan, np.sqrt(variance))
        return Estimate(value, se, _degrees_of_freedom(parts, df))


def permutation_p_values(values: Array, weights: Array, block: Array) -> Array:
    """Return how often a contrast is at least as large if clips are dealt anew within blocks.

    The two-sided p-value of the permutation test [1]_, from `PERMUTATIONS` random permutations; 0
    if none gives as large a contrast. It holds for any distribution of the values, as of a feature
    that has few values, or two ranges of values, where few clips of a level easily agree.

    Parameters
    ----------
    values : np.ndarray [shape=(clips, features)]
    weights : np.ndarray [shape=(clips,)]
        Of the contrast.
    block : np.ndarray [shape=(clips,)]
        Numbers from 0 on. Without an effect, clips of a block could be exchanged.

    References
    ----------
    .. [1] Pesarin, F. (2001). Multivariate Permutation Tests: With Applications in Biostatistics.
       Wiley.
    """
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(block == number) for number in np.unique(block)]
    size = np.abs(weights @ values) * (1 - ROUNDING)
    larger = np.zeros(values.shape[1])
    for count in np.diff(np.linspace(0, PERMUTATIONS, 12, dtype=int)):
        dealt = np.zeros((count, len(weights)))
        for own in rows:
            dealt[:, own] = rng.permuted(np.tile(weights[own], (count, 1)), axis=1)
        larger += np.sum(np.abs(dealt @ values) >= size, axis=0)
    return larger / PERMUTATIONS


def _sums(values: Array, group: Array, groups: int) -> Array:
    """Add up the rows of each group."""
    sums = np.zeros((groups, values.shape[1]))
    np.add.at(sums, group.astype(int), values)
    return sums


def _variance(squares: Array, df: Array) -> Array:
    """Return the variances of sums of squares; 0 without degrees of freedom."""
    return np.asarray(np.where(df > 0, squares / np.where(df > 0, df, 1), 0.0))


def effective_df(df: Array, factor: Array | float) -> Array:
    """Return the degrees of freedom of variances whose clips come in clusters that are alike.

    With factor clips to a cluster that are the same, n clips are worth n / factor, so that n - 1
    degrees of freedom become n / factor - 1 [1]_.

    Parameters
    ----------
    df : np.ndarray [shape=(groups, 1)]
        As if all clips were independent.
    factor : float or np.ndarray [shape=(features,)]
        See `inflation`.

    References
    ----------
    .. [1] Kish, L. (1965). Survey Sampling. Wiley. On the design effect.
    """
    fewer = (df + 1 - factor) / factor
    return np.where(fewer > LEAST_DF, fewer, 0)


def inflation(residuals: Array, group: Array, replicate: Array) -> float:
    """Return by how much clips of one seed raise the variance of a group's mean, by being alike.

    The ratio of the cluster-robust to the heteroscedasticity-robust variance, on average over the
    features; at least 1.

    Parameters
    ----------
    residuals : np.ndarray [shape=(recordings, features)]
    group, replicate : np.ndarray [shape=(recordings,)]
        Clips of one replicate in one group make a cluster.
    """
    _, cluster = np.unique(np.column_stack([group, replicate]), axis=0, return_inverse=True)
    cluster = cluster.ravel()
    together = np.sum(_sums(residuals, cluster, int(cluster.max()) + 1) ** 2, axis=0)
    apart = np.sum(residuals**2, axis=0)
    scattering = apart > 0
    if not scattering.any():
        return 1.0
    return max(1.0, float(np.mean(together[scattering] / apart[scattering])))


def _degrees_of_freedom(parts: Array, df: Array) -> Array:
    """Return Satterthwaite's degrees of freedom, if one of the parts had come out too small."""
    from scipy.stats import chi2

    df = np.where(df > 0, df, 1)  # of a group without freedom, which has no part
    larger = df / chi2.ppf(UNDERESTIMATE, df)
    fewest = np.full(parts.shape[1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for row in range(len(parts)):
            if not parts[row].any():
                continue
            raised = parts.copy()
            raised[row] *= larger[row]
            fewest = np.fmin(fewest, raised.sum(axis=0) ** 2 / np.sum(raised**2 / df, axis=0))
    return np.where(np.isfinite(fewest), np.maximum(fewest, 1.0), 1.0)
