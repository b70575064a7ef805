"""A map of clips on which those with like features are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.analysis.features import NUMBERS, numeric_features
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.run_features import with_run_features

if TYPE_CHECKING:
    import pandas as pd

MISSING_MOST = 0.2  # of a feature's values, for it to have a place on the map


@dataclass(frozen=True, eq=False)
class PrincipalMap:
    """Clips on a plane, those with like features near each other.

    Attributes
    ----------
    coordinates : np.ndarray [shape=(clips, 2)]
        In standard deviations of a feature; NaN for clips without features.
    explained : np.ndarray [shape=(2,)]
        The share of the features' variance along each axis, 0 to 1.
    loadings : np.ndarray [shape=(2, features)]
        How much each feature used counts along each axis, -1 to 1.
    used : list of int
        The features on the map, by their number; the others are constant or mostly unknown.
    """

    coordinates: Array
    explained: Array
    loadings: Array
    used: list[int]


def principal_map(values: Array) -> PrincipalMap:
    """Lay clips out on the plane along which their features vary most.

    Principal components of the standardised features [1]_. A feature that is unknown for more than
    a fifth of the audible clips is left out; where fewer values are unknown, the mean replaces
    them.

    Parameters
    ----------
    values : np.ndarray [shape=(clips, features)]
        NaN where a feature is unknown; a clip for which all are is not placed.

    Returns
    -------
    PrincipalMap

    Raises
    ------
    ValueError
        When under three clips, or no feature, can be placed.

    References
    ----------
    .. [1] Jolliffe, I. T. (2002). Principal Component Analysis, second edition. Springer.
    """
    known = np.isfinite(values)
    placed = known.mean(axis=1) > 0.5  # silent clips have a level or two, and no more
    if placed.sum() < 3:
        raise ValueError(f"a map needs at least 3 clips that sound, got {placed.sum()}")
    rows = np.where(known, values, np.nan)[placed]
    missing = np.isnan(rows).mean(axis=0)
    spread = np.nanmax(np.where(missing < 1, rows, 0), axis=0) - np.nanmin(
        np.where(missing < 1, rows, 0), axis=0
    )
    used = np.flatnonzero((missing <= MISSING_MOST) & (spread > 0))
    if used.size == 0:
        raise ValueError("no feature differs between the clips")
    rows = rows[:, used]
    standard = (rows - np.nanmean(rows, axis=0)) / np.nanstd(rows, axis=0)
    flat = np.nan_to_num(standard)
    if flat.shape[1] == 1:
        flat = np.pad(flat, ((0, 0), (0, 1)))  # the second axis of a map of one feature is empty
    scores, strengths, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:2, : len(used)]
    # The sign of an axis is free: the feature that counts most along it points up.
    sign = np.sign(axes[[0, 1], np.argmax(np.abs(axes), axis=1)])
    coordinates = np.full((len(values), 2), np.nan)
    coordinates[placed] = scores[:, :2] * strengths[:2] * sign
    explained = strengths[:2] ** 2 / np.sum(strengths**2)
    return PrincipalMap(coordinates, explained, axes * sign[:, np.newaxis], used.tolist())


def map_coordinates(table: RunTable, features: Sequence[str] | None = None) -> pd.DataFrame:
    """Lay the clips of a run out on a plane, those with like features near each other.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        All that are numbers if not given.

    Returns
    -------
    pandas.DataFrame
        One row per clip: `key`, the swept fields, `x` and `y` (NaN for failed and silent clips).
        `attrs` has `explained`, the share of the features' variance along x and y, and `loadings`,
        the weight of every feature used along them; see `PrincipalMap`.

    Raises
    ------
    InvalidRequest
        When under three clips sound, no feature differs between them, or there is no such feature.
    """
    names = list(NUMBERS) if features is None else numeric_features(features)
    table = with_run_features(table, names)
    try:
        result = principal_map(table.frame[names].astype("Float64").astype(float).to_numpy())
    except ValueError as error:
        raise InvalidRequest(f"there is no map of this run: {error}") from error
    x, y = result.coordinates.T
    coordinates = table.frame[["key", *table.swept]].assign(x=x, y=y)
    coordinates.attrs["explained"] = result.explained.tolist()
    coordinates.attrs["loadings"] = {
        names[number]: loading.tolist()
        for number, loading in zip(result.used, result.loadings.T, strict=True)
    }
    return coordinates
