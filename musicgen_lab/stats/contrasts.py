"""Contrasts between the clips of a study, each group of clips with a variance of its own.

A contrast is a weighted sum of clips, such as "the mean at the highest temperature less that at
the lowest, all else being equal". Its standard error comes from the residuals of a linear model:
those of each group (a level of the parameter, or a cell) give the variance of that group, so that
a level which scatters more than others neither hides nor feigns an effect. Student's t with
Satterthwaite's degrees of freedom [1]_ judges it, taken at a lower confidence limit, as a variance
of few clips is easily estimated far too small. The same recording counts once, in however many
cells it is.

References
----------
.. [1] Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance
   components. Biometrics Bulletin 2(6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

ROUNDING = 1e-6
"""Differences under this share of the largest value are rounding of 32-bit samples, and are 0."""

UNDERESTIMATE = 0.2
"""How likely a group's variance is to be smaller, against the true one, than is allowed for."""


T_LARGEST = 1000.0
"""Beyond it the noncentrality's interval is in proportion to t; SciPy's is slow and wrong there."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One contrast of several features.

    Attributes
    ----------
    value, se : np.ndarray [shape=(features,)]
        In the features' units. ``se`` is 0 where nothing scatters.
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
    variance : np.ndarray [shape=(groups, features)]
        Of a recording; that of all groups together for a group that the model leaves no freedom,
        and, for a feature with two values, at least that: few clips of a group easily agree.
    df : np.ndarray [shape=(groups,)]
    pooled_df : float
    inflation : float or np.ndarray [shape=(features,)]
        What the variance of a contrast is multiplied by, as clips of one seed are alike.
    by_rater : np.ndarray [shape=(raters, clips)], optional
        For values that come from several listeners, who are a sample too: by how much each one
        changes them. See `contrast`.
    rater_variance : np.ndarray [shape=(groups,)], optional
        What remains of those changes, as ``variance`` is of the values.
    """

    clips: Clips
    group: Array
    variance: Array
    df: Array
    pooled_df: float
    inflation: float | Array
    by_rater: Array | None = None
    rater_variance: Array | None = None

    @classmethod
    def of(
        cls,
        clips: Clips,
        model: Array,
        group: Array,
        replicate: Array | None = None,
        by_rater: Array | None = None,
    ) -> Residuals:
        """Fit a model by least squares.

        Parameters
        ----------
        clips : Clips
        model : np.ndarray [shape=(clips, columns)]
            The model's columns, which may depend on each other.
        group : np.ndarray [shape=(clips,)]
            Counted from 0.
        replicate : np.ndarray [shape=(clips,)], optional
            Numbers of the seeds. Where clips of one seed in one group are more alike than others,
            on average over the features, contrasts of groups become less certain by that.
        by_rater : np.ndarray [shape=(raters, clips)], optional
        """
        values, group = clips.values[clips.first], group[clips.first]
        left, strengths, _ = np.linalg.svd(model[clips.first], full_matrices=False)
        basis = left[:, strengths > 1e-9 * strengths[0]]
        residuals = values - basis @ (basis.T @ values)
        scale = np.max(np.abs(values), axis=0, initial=0.0)
        residuals[np.abs(residuals) <= ROUNDING * scale] = 0
        free = 1 - np.sum(basis**2, axis=1)
        df = np.bincount(group, free)
        squares = _sums(residuals**2, group)
        has_df = df > 1e-6
        pooled = squares.sum(axis=0) / max(df.sum(), 1e-6)
        variance = np.where(has_df[:, None], squares / np.where(has_df, df, 1)[:, None], pooled)
        extreme = (values == values.min(axis=0)) | (values == values.max(axis=0))
        variance = np.where(extreme.all(axis=0), np.maximum(variance, pooled), variance)
        factor = 1.0
        if replicate is not None:
            factor = inflation(residuals, group, replicate[clips.first])
        pooled_df = float(df.sum())
        rater_variance = None
        if by_rater is not None:
            changes = by_rater[:, clips.first].T
            left_over = _sums((changes - basis @ (basis.T @ changes)) ** 2, group).sum(axis=1)
            rater_variance = np.where(
                has_df, left_over / np.where(has_df, df, 1), left_over.sum() / max(df.sum(), 1e-6)
            )
        return cls(
            clips,
            group,
            variance,
            np.where(has_df, df, 0),
            pooled_df,
            factor,
            by_rater,
            rater_variance,
        )

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
        borrowed = self.df == 0
        parts = np.vstack([parts[~borrowed], parts[borrowed].sum(axis=0)]) * self.inflation
        df = np.append(self.df[~borrowed], self.pooled_df)
        variance = parts.sum(axis=0)
        if self.by_rater is not None and self.rater_variance is not None:
            raters = len(self.by_rater)
            jackknife = (raters - 1) / raters
            between = jackknife * np.sum((self.by_rater @ weights) ** 2)
            both = jackknife * squared * self.rater_variance
            both = np.append(both[~borrowed], both[borrowed].sum())[:, np.newaxis]
            parts = np.vstack([np.maximum(parts - both, 0), np.full(len(value), between)])
            df = np.append(df, raters - 1)
            variance = np.maximum(variance, parts.sum(axis=0))
        return Estimate(value, np.sqrt(variance), _degrees_of_freedom(parts, df))


def _sums(values: Array, group: Array) -> Array:
    """Add up the rows of each group."""
    sums = np.zeros((int(group.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, group.astype(int), values)
    return sums


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
    together = np.sum(_sums(residuals, cluster.ravel()) ** 2, axis=0)
    apart = np.sum(residuals**2, axis=0)
    scattering = apart > 0
    if not scattering.any():
        return 1.0
    return max(1.0, float(np.mean(together[scattering] / apart[scattering])))


def _degrees_of_freedom(parts: Array, df: Array) -> Array:
    """Return Satterthwaite's degrees of freedom, if one of the parts had come out too small."""
    from scipy.stats import chi2

    usable = df > 0
    parts, df = parts[usable], df[usable][:, np.newaxis]
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
