"""What each seed says about a parameter: a table of seeds by levels, and a test over its rows.

The seeds of a study are its replicates, and the same ones are made in every cell. Two clips of one
seed start from the same random numbers, so that they may be alike: counting each clip as a witness
of its own would count a seed many times over. Hence every seed is asked once, by its mean at every
level, and the seeds are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class SeedTable:
    """A feature's mean for every seed and every combination of the factors' levels.

    Attributes
    ----------
    means : np.ndarray [shape=(seeds, levels of the first factor, ...)]
        Without NaN: seeds that lack a level are left out.
    levels : tuple of list
        The factors' levels, rising where they can be ordered.
    clips : int
        Clips behind the table.
    left_out : int
        Clips that are not in it, as they have no value or no counterpart at every other level.
    """

    means: Array
    levels: tuple[list[Any], ...]
    clips: int
    left_out: int


def seed_tables(
    frame: pd.DataFrame,
    factors: Sequence[str],
    features: Sequence[str],
    *,
    others: Sequence[str],
    replicate: str,
) -> list[SeedTable]:
    """Return the table of each feature over the levels of one or more factors.

    A clip counts where the same seed has a value at every level with all else equal (`others`), so
    that levels are compared on the same ground when clips failed or are silent.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per clip.
    factors, features, others : sequence of str
        Columns.
    replicate : str
        The column that numbers the replicates.
    """
    levels = tuple(sorted_levels(frame[name]) for name in factors)
    shape = [len(found) for found in levels]
    cell = np.zeros(len(frame), int)  # the combination of levels, counted through
    for name, found in zip(factors, levels, strict=True):
        number = {level: i for i, level in enumerate(found)}
        cell = cell * len(found) + frame[name].map(number).to_numpy(int)
    ground = frame.groupby([replicate, *others], dropna=False, sort=False).ngroup().to_numpy()
    seed = frame.groupby(replicate, dropna=False, sort=False).ngroup().to_numpy()
    seed_of_ground = np.zeros(ground.max(initial=-1) + 1, int)
    seed_of_ground[ground] = seed
    tables = []
    for feature in features:
        values = frame[feature].to_numpy(float, na_value=np.nan)
        there = np.isfinite(values)
        sums, counts = (np.zeros((len(seed_of_ground), math.prod(shape))) for _ in range(2))
        np.add.at(sums, (ground[there], cell[there]), values[there])
        np.add.at(counts, (ground[there], cell[there]), 1)
        whole = np.all(counts > 0, axis=1)
        kept, row_seed = np.unique(seed_of_ground[whole], return_inverse=True)
        per_seed = np.zeros((len(kept), math.prod(shape)))
        np.add.at(per_seed, row_seed, sums[whole] / counts[whole])
        per_seed /= np.bincount(row_seed, minlength=len(kept))[:, np.newaxis]
        clips = int(counts[whole].sum())
        tables.append(
            SeedTable(
                per_seed.reshape(len(kept), *shape), levels, clips, left_out=len(frame) - clips
            )
        )
    return tables


def is_ordered(values: pd.Series[Any]) -> bool:
    """Whether a parameter's values are numbers, so that more and less of it have a meaning."""
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def sorted_levels(values: pd.Series[Any]) -> list[Any]:
    """Return a parameter's values, each once: rising for numbers, else in the order they came."""
    found = values.drop_duplicates()
    return list(found.sort_values() if is_ordered(values) else found)


def contrasts(means: Array) -> Array:
    """Return what of each seed's table speaks of the factor, or of two factors' interaction.

    Orthonormal (Helmert) contrasts over each axis of levels.

    Returns
    -------
    np.ndarray [shape=(seeds, product of (levels - 1))]
    """
    from scipy.linalg import helmert

    for axis in range(1, means.ndim):
        means = np.moveaxis(np.tensordot(helmert(means.shape[axis]), means, (1, axis)), 0, axis)
    return means.reshape(len(means), -1)


def repeated_measures_test(seed_contrasts: Array) -> tuple[float, float]:
    """Test whether contrasts differ from 0, with the seeds as the subjects.

    Analysis of variance for repeated measures, with the degrees of freedom corrected by Huynh and
    Feldt's epsilon [1]_ for levels that scatter differently (a high temperature does).

    Parameters
    ----------
    seed_contrasts : np.ndarray [shape=(seeds, contrasts)]
        At least two seeds.

    Returns
    -------
    effect_size : float
        Partial eta squared, 0 to 1: of what the contrasts vary, the share that all seeds have in
        common.
    p_value : float
        0 where the seeds agree to the last digit.

    References
    ----------
    .. [1] Huynh, H., and Feldt, L. S. (1976). Estimation of the Box correction for degrees of
       freedom from sample data. Journal of Educational Statistics 1(1).
    """
    from scipy.stats import f

    n, df = seed_contrasts.shape
    mean = seed_contrasts.mean(axis=0)
    scatter = seed_contrasts - mean
    effect, error = n * float(mean @ mean), float(np.sum(scatter**2))
    if error <= 1e-18 * effect:
        return 1.0, 0.0
    covariance = scatter.T @ scatter
    box = float(np.trace(covariance)) ** 2 / (df * float(np.sum(covariance**2)))
    room = df * (n - 1 - df * box)
    epsilon = min(1.0, max(box, (n * df * box - 2) / room)) if room > 0 else 1.0
    ratio = (effect / df) / (error / (df * (n - 1)))
    return effect / (effect + error), float(f.sf(ratio, epsilon * df, epsilon * df * (n - 1)))
