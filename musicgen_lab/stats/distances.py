"""How far the clips and the cells of a run are from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.analysis.distances import DISTANCES, mean_distances
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.runs.derived import signatures
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    import pandas as pd


def clip_distances(table: RunTable, distance: str = "mel_cepstral_db") -> pd.DataFrame:
    """Return how far every clip is from every other.

    Parameters
    ----------
    table : RunTable
    distance : str
        One of `musicgen_lab.analysis.distances.DISTANCES`.

    Returns
    -------
    pandas.DataFrame
        Rows and columns are the clips' keys, in the order of the frame; NaN for failed and silent
        clips.

    Raises
    ------
    InvalidRequest
        When there is no such distance, or the clips have different sample rates.
    """
    import pandas as pd

    if distance not in DISTANCES:
        raise InvalidRequest(
            f"unknown distance {distance!r}; the distances are {', '.join(DISTANCES)}",
            field="distance",
            value=distance,
        )
    rates = table.frame["sample_rate_hz"].dropna().unique()
    if len(rates) > 1:
        raise InvalidRequest(
            f"clips of {', '.join(map(str, rates))} Hz cannot be compared: select one model"
        )
    matrix = DISTANCES[distance].measure(table.cached("signatures", lambda: signatures(table)))
    keys = pd.Index(table.frame["key"], name="key")
    return pd.DataFrame(matrix, index=keys, columns=keys)


def cell_distances(table: RunTable, distance: str = "mel_cepstral_db") -> pd.DataFrame:
    """Return the mean distance between the clips of every two cells.

    On the diagonal is a cell's diversity: the distance between two clips that differ in their seed
    alone. Cells differ where the values off the diagonal are larger than those on it. Parameters
    and errors are those of `clip_distances`.

    Returns
    -------
    pandas.DataFrame
        Rows and columns are the cells: a MultiIndex of the swept fields.
    """
    import pandas as pd

    matrix = clip_distances(table, distance).to_numpy()
    by = table.cell_fields
    cells = table.frame.groupby(by, sort=False, dropna=False)
    names = pd.MultiIndex.from_frame(table.frame[by].drop_duplicates())
    between = mean_distances(matrix, cells.ngroup().tolist())
    return pd.DataFrame(between, index=names, columns=names)


def diversity(table: RunTable) -> pd.DataFrame:
    """Return how different the clips of every cell are that differ in their seed alone.

    Returns
    -------
    pandas.DataFrame
        One row per cell: the swept fields, `n` (clips made), and the mean distance between two
        clips of the cell by each of `musicgen_lab.analysis.distances.DISTANCES`; NaN where under
        two clips sound.

    Raises
    ------
    InvalidRequest
        When the clips have different sample rates.
    """
    by = table.cell_fields
    cells = table.frame.groupby(by, sort=False, dropna=False)
    spread = {name: np.diag(cell_distances(table, name)) for name in DISTANCES}
    return cells["path"].count().rename("n").reset_index().assign(**spread)
