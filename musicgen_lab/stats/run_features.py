"""Features that a clip has as part of a run: diversity over seeds, drift, and what models say."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np

from musicgen_lab.analysis.aesthetics import AESTHETICS
from musicgen_lab.analysis.drift import DRIFT_FEATURES, drifts
from musicgen_lab.analysis.features import RUN_FEATURES
from musicgen_lab.analysis.perceptual import CLAP
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.runs.derived import aesthetic_scores, text_similarities, window_values
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.distances import clip_distances


def with_run_features(table: RunTable, names: Iterable[str]) -> RunTable:
    """Return the table with columns for those features that are no features of a clip alone.

    Parameters
    ----------
    table : RunTable
    names : iterable of str
        Any features; those of `musicgen_lab.analysis.features.FEATURES` are there already.

    Raises
    ------
    InvalidRequest
        When the clips have different sample rates and cannot be compared.
    ModelUnavailable
        When a model is needed that is not there and cannot be fetched.
    """
    new = [name for name in names if name in RUN_FEATURES and name not in table.frame]
    if not new:
        return table
    return table.cached(("with_run_features", *new), lambda: reduce(_with, new, table))


def _with(table: RunTable, name: str) -> RunTable:
    if name in table.frame:  # aesthetic scores come together, and so do drifts
        return table
    if name == "diversity_db":
        cells = table.frame.groupby(table.cell_fields, dropna=False).ngroup()
        distances = clip_distances(table).to_numpy()
        return table.with_columns(diversity_db=seed_diversity(distances, np.asarray(cells, float)))
    if name == "text_similarity":
        return table.with_columns(text_similarity=text_similarities(table, CLAP))
    if name in DRIFT_FEATURES:
        rows = [drifts(windows) for windows in window_values(table)]
        return table.with_columns(**{drift: [row[drift] for row in rows] for drift in rows[0]})
    return table.with_columns(**aesthetic_scores(table, AESTHETICS))


def seed_diversity(distances: Array, cell: Array) -> Array:
    """Return what each clip contributes to the mean distance between two clips of its cell.

    The jackknife's pseudo-values [1]_: their mean over a cell is the mean distance between two of
    its clips, and their scatter gives that mean's standard error, although every distance is
    shared by two clips. So diversity is summarised, drawn and tested like any other feature.

    Parameters
    ----------
    distances : np.ndarray [shape=(clips, clips)]
        NaN for clips without a sound.
    cell : np.ndarray [shape=(clips,)]
        Number of the cell.

    Returns
    -------
    np.ndarray [shape=(clips,)]
        NaN where fewer than three clips of a cell sound.

    References
    ----------
    .. [1] Arvesen, J. N. (1969). Jackknifing U-statistics. Annals of Mathematical Statistics 40(6).
    """
    values = np.full(len(cell), np.nan)
    sounding = np.isfinite(np.diagonal(distances))
    for number in np.unique(cell):
        rows = np.flatnonzero((cell == number) & sounding)
        n = len(rows)
        if n < 3:
            continue
        to_others = distances[np.ix_(rows, rows)].sum(axis=1) / (n - 1)
        mean = to_others.mean()
        values[rows] = mean + 2 * (n - 1) / (n - 2) * (to_others - mean)
    return values
