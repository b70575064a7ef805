"""The Fréchet distance between two large sets of clips, and why not between small ones."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

FEWEST_CLIPS = 200
CLIPS_PER_DIMENSION = 2


def frechet_distance(first: Array, second: Array) -> float:
    """Return how far apart two sets of clips are as Gaussian clouds of embeddings (FAD).

    The squared distance of the means plus what the covariances differ [1]_. **It depends on the
    number of clips**: the covariance of few is too narrow, so that small sets seem farther apart
    than they are, by about 1/n [2]_. Compare only values of sets of the same size and the same
    embedding, never single cells of a sweep; sets that are too small are refused.

    Parameters
    ----------
    first, second : np.ndarray [shape=(clips, d)]
        One embedding a row, such as `perceptual.Clap.embed_sound`. No silent clips: their
        embedding is NaN.

    Returns
    -------
    float
        At least 0, in the square of the embedding's unit.

    Raises
    ------
    ValueError
        When the dimensions differ, a number is not finite, or a set has under 200 clips or under
        twice as many as dimensions.

    References
    ----------
    .. [1] Kilgour, K., et al. (2019). Fréchet audio distance: a reference-free metric for
       evaluating music enhancement algorithms. Proceedings of Interspeech.
    .. [2] Gui, A., et al. (2024). Adapting Fréchet audio distance for generative music evaluation.
       Proceedings of ICASSP.
    """
    from scipy.linalg import sqrtm

    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"embeddings must be (clips, d), got {first.shape} and {second.shape}")
    fewest = max(FEWEST_CLIPS, CLIPS_PER_DIMENSION * first.shape[1])
    for embeddings in (first, second):
        if len(embeddings) < fewest:
            raise ValueError(
                f"a Fréchet distance in {first.shape[1]} dimensions needs at least {fewest} clips "
                f"in each set, got {len(embeddings)}: compare the features instead"
            )
        if not np.all(np.isfinite(embeddings)):
            raise ValueError("embeddings must be finite: leave silent clips out")
    means = first.mean(axis=0) - second.mean(axis=0)
    one, two = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))
    together = np.trace(sqrtm(one @ two).real)
    return max(0.0, float(means @ means + np.trace(one) + np.trace(two) - 2 * together))
