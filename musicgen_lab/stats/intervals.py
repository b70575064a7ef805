"""Intervals of a mean over few independent values."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

FEWEST = 3
"""Under this many values there is no interval."""

FEWEST_RESAMPLED = 8
"""Under this many values resampling them cannot tell how far off their mean may be."""

RESAMPLES = 1999
_ROWS_AT_ONCE = 4_000_000  # numbers held in memory for the resamples


def mean_intervals(
    values: Array, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array]:
    """Return a confidence interval of the mean of each row's population.

    The percentile bootstrap [1]_ over a row's values, at a level that is widened for few values as
    in [2]_: the plain one is too narrow by a factor of sqrt((n - 1) / n) and by the difference
    between Student's and the normal distribution. Under eight values even that falls short of
    95%, and the interval is Student's, which may reach beyond all of them.

    Parameters
    ----------
    values : np.ndarray [shape=(rows, n)]
        Independent of each other within a row. The same resamples are used for every row.
    confidence : float
        Between 0 and 1.
    resamples : int
        More make the ends smoother, and take longer.
    seed : int
        Of the resampling, so that a result can be had again.

    Returns
    -------
    low, high : np.ndarray [shape=(rows,)]
        NaN where n is under `FEWEST`.

    References
    ----------
    .. [1] Efron, B., and Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 13.
    .. [2] Hesterberg, T. (2015). What teachers should know about the bootstrap. The American
       Statistician 69(4), section 5.3: the expanded percentile interval.
    """
    from scipy.stats import bootstrap, t

    rows, n = values.shape
    if n < FEWEST or rows == 0:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    if n < FEWEST_RESAMPLED:
        middle, error = values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(n)
        reach = error * t.ppf((1 + confidence) / 2, n - 1)
        return middle - reach, middle + reach
    interval = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, _ROWS_AT_ONCE // values.size),
        confidence_level=expanded(confidence, n),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return interval.low, interval.high


def expanded(confidence: float, n: int) -> float:
    """Return the nominal level at which a percentile interval of n values has a given coverage.

    Examples
    --------
    >>> round(expanded(0.95, 10), 3)
    0.983
    """
    from scipy.stats import norm, t

    z = np.sqrt(n / (n - 1)) * t.ppf((1 + confidence) / 2, n - 1)
    return float(norm.cdf(z) - norm.cdf(-z))
