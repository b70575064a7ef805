"""How highly clips are rated, whichever ones each listener rated.

A rating is modelled as the sum of the listener's own mean and the clip's value [1]_, so that a clip
does not seem better because it was rated by listeners who rate everything highly, nor a listener
stricter because they heard worse clips.

References
----------
.. [1] Scheffé, H. (1959). The Analysis of Variance. Wiley. Chapter 4, on the additive two-way
   layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

UNRATED = 1e-6
"""Weight of an average rating of every clip: it settles clips that nobody rated, and no others."""


@dataclass(frozen=True, eq=False)
class MeanRatings:
    """The mean ratings of clips.

    Attributes
    ----------
    value : np.ndarray [shape=(clips,)]
        In points, less those of the average clip.
    by_rater : np.ndarray [shape=(raters, clips)]
        By how much the ratings of each listener change the values: these less those without them.
    """

    value: Array
    by_rater: Array

    @classmethod
    def fit(cls, ratings: Array) -> MeanRatings:
        """Fit the model by least squares.

        Parameters
        ----------
        ratings : np.ndarray [shape=(raters, clips)]
            NaN where a listener has not rated a clip; every listener has rated one.
        """
        value = _fit(ratings)
        without = [_fit(np.delete(ratings, number, axis=0)) for number in range(len(ratings))]
        return cls(value, value - np.array(without))


def _fit(ratings: Array) -> Array:
    """Return the values of clips; 0 where nobody rated one."""
    rated = np.isfinite(ratings).astype(float)
    of_rater = rated / rated.sum(axis=1, keepdims=True)
    points = np.nan_to_num(ratings)
    centred = rated * (points - np.sum(of_rater * points, axis=1, keepdims=True))
    information = np.diag(rated.sum(axis=0) + UNRATED) - rated.T @ of_rater
    return np.asarray(np.linalg.solve(information, centred.sum(axis=0)))
