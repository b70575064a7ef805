"""How strong clips are in comparisons of two: the Bradley-Terry model, fitted by statsmodels.

The chance that a clip is preferred to another is the logistic function of the difference of their
strengths [1]_. "No difference" counts as half a win of each. One draw of every clip with an average
one is added to the answers, so that a clip that won all its comparisons has a strength too, and so
have clips that were never compared with each other, directly or through others [2]_; this draws
strengths towards 0, the less the more answers there are.

References
----------
.. [1] Bradley, R. A., and Terry, M. E. (1952). Rank analysis of incomplete block designs: I. The
   method of paired comparisons. Biometrika 39(3/4).
.. [2] Whelan, J. T. (2017). Prior distributions for the Bradley-Terry model of paired comparisons.
   arXiv:1712.05311.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

DRAWS = 0.5
"""Weight of the draw with an average clip that is added for every clip."""


@dataclass(frozen=True, eq=False)
class Strengths:
    """The strengths of clips.

    Attributes
    ----------
    value : np.ndarray [shape=(clips,)]
        In log-odds.
    by_rater : np.ndarray [shape=(raters, clips)]
        By how much the answers of each listener change the values: these less those without them.
    """

    value: Array
    by_rater: Array

    @classmethod
    def fit(cls, pairs: Array, score: Array, clips: int, rater: Array | None = None) -> Strengths:
        """Fit the model to answers.

        Parameters
        ----------
        pairs : np.ndarray [shape=(answers, 2), dtype=int]
            Numbers of the two clips.
        score : np.ndarray [shape=(answers,)]
            1 where the first one is preferred, 0 where the second is, 0.5 where neither is.
        clips : int
        rater : np.ndarray [shape=(answers,)], optional
            Number of the listener, counted from 0; all are one if not given.
        """
        from statsmodels.genmod.families import Binomial
        from statsmodels.genmod.generalized_linear_model import GLM

        answers = len(pairs)
        one = np.zeros(answers, int) if rater is None else rater.astype(int)
        design = np.zeros((answers + clips, clips))
        design[np.arange(answers), pairs[:, 0]] += 1
        design[np.arange(answers), pairs[:, 1]] -= 1
        design[answers:] = np.eye(clips)
        scores = np.concatenate([score, np.full(clips, 0.5)])
        weights = np.concatenate([np.ones(answers), np.full(clips, DRAWS)])
        with warnings.catch_warnings():  # of answers that are all the same; the draws settle them
            warnings.simplefilter("ignore")
            fit = GLM(scores, design, family=Binomial(), freq_weights=weights).fit()
        expected = np.asarray(fit.fittedvalues)
        gradient = design[:answers] * (score - expected[:answers])[:, np.newaxis]
        weights *= expected * (1 - expected)
        information = (design.T * weights) @ design
        by_rater = np.zeros((int(one.max()) + 1, clips))
        for number in range(len(by_rater)):
            (own,) = np.nonzero(one == number)
            # One Newton step from the fit of all answers to that without these.
            others = information - (design[own].T * weights[own]) @ design[own]
            by_rater[number] = np.linalg.solve(others, gradient[own].sum(axis=0))
        return cls(np.asarray(fit.params), by_rater)


class Design:
    """The comparisons made so far, and which ones would tell most.

    The information is that at equal strengths, so that it depends on which clips were compared and
    not on the outcomes. Choosing pairs that seem equally strong so far would be more informative
    for their order, but stretches the scale: strengths that come from pairs chosen by outcomes are
    overestimated [1]_.

    Parameters
    ----------
    pairs : np.ndarray [shape=(answers, 2), dtype=int]
        Numbers of the two clips.
    clips : int

    References
    ----------
    .. [1] Bramley, T., and Vitello, S. (2019). The effect of adaptivity on the reliability
       coefficient in adaptive comparative judgement. Assessment in Education 26(1).
    """

    def __init__(self, pairs: Array, clips: int) -> None:
        design = np.zeros((len(pairs), clips))
        design[np.arange(len(pairs)), pairs[:, 0]] = 1
        design[np.arange(len(pairs)), pairs[:, 1]] = -1
        self._covariance = np.linalg.inv((DRAWS * np.eye(clips) + design.T @ design) / 4)

    def add(self, pair: Array) -> None:
        """Add a comparison.

        Parameters
        ----------
        pair : np.ndarray [shape=(2,), dtype=int]
        """
        first, second = self._covariance[pair]
        change = first - second
        variance = change[pair[0]] - change[pair[1]]
        self._covariance -= np.outer(change, change) / (4 + variance)

    def information(self, pairs: Array) -> Array:
        """Return how much an answer to each pair is expected to tell of the strengths.

        The growth of the log determinant of their information matrix (D-optimality [1]_): large
        for clips of which little is known, above all in relation to each other.

        Parameters
        ----------
        pairs : np.ndarray [shape=(pairs, 2), dtype=int]

        Returns
        -------
        np.ndarray [shape=(pairs,)]

        References
        ----------
        .. [1] Chaloner, K., and Verdinelli, I. (1995). Bayesian experimental design: a review.
           Statistical Science 10(3).
        """
        first, second = pairs.T
        own = np.diagonal(self._covariance)
        variance = own[first] + own[second] - 2 * self._covariance[first, second]
        return np.asarray(np.log1p(variance / 4))
