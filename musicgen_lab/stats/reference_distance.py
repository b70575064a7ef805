"""How far the clips of every cell are from a folder of reference recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.clip import decode_audio
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.runs.derived import clap_embeddings
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
REFERENCES_FEWEST = 10


def reference_distance(table: RunTable, folder: str | Path, source: str) -> pd.DataFrame:
    """Return the distance between the clips of every cell and a folder of recordings.

    The kernel audio distance of CLAP embeddings (`kernel_distance`), which, unlike the Fréchet
    audio distance, is right on average for few clips, too. Few clips still scatter: compare cells
    only with the same reference, and by more than their distances differ between halves of the
    seeds.

    Parameters
    ----------
    table : RunTable
    folder : str or Path
        With at least 10 sound files (WAV, FLAC, OGG, MP3) directly in it.
    source : str
        The CLAP model: a Hub id or a folder; see `musicgen_lab.analysis.perceptual.Clap`.

    Returns
    -------
    pandas.DataFrame
        One row per cell: the swept fields, `n` (clips that are not silent) and `distance`; NaN for
        under two clips.

    Raises
    ------
    InvalidRequest
        When the folder has too few sound files.
    ModelUnavailable
        As `musicgen_lab.analysis.perceptual.Clap`.
    """
    from musicgen_lab.analysis.perceptual import Clap

    files = sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []
    files = [path for path in files if path.suffix.lower() in SUFFIXES]
    if len(files) < REFERENCES_FEWEST:
        raise InvalidRequest(
            f"{folder} has {len(files)} sound files; a reference needs at least "
            f"{REFERENCES_FEWEST} ({', '.join(SUFFIXES)}), of the music that clips should be like",
            field="folder",
            value=str(folder),
        )
    clap = Clap(source)
    reference = np.array([clap.embed_sound(*decode_audio(path.read_bytes())) for path in files])
    reference = reference[np.isfinite(reference).all(axis=1)]
    embeddings = clap_embeddings(table, source)
    audible = np.isfinite(embeddings).all(axis=1)
    by = table.cell_fields
    cells = table.frame.groupby(by, sort=False, dropna=False)
    rows = cells.size().reset_index()[by]
    groups = cells.ngroup().to_numpy()
    members = [embeddings[(groups == cell) & audible] for cell in range(cells.ngroups)]
    return rows.assign(
        n=[len(clips) for clips in members],
        distance=[kernel_distance(clips, reference) for clips in members],
    )


def kernel_distance(clips: Array, reference: Array) -> float:
    """Return the kernel audio distance between two sets of embeddings [1]_.

    The unbiased estimate of the squared maximum mean discrepancy, with a Gaussian kernel as wide
    as the median distance between two references.

    Parameters
    ----------
    clips, reference : np.ndarray [shape=(n, d)]

    Returns
    -------
    float
        0 on average for two sets of the same distribution, hence also a little below it; 2 at
        most. NaN where a set has under two rows.

    References
    ----------
    .. [1] Chung, Y., et al. (2025). KAD: no more FAD! An effective and efficient evaluation metric
       for audio generation. arXiv:2502.15602.
    """
    from scipy.spatial.distance import cdist, pdist

    if min(len(clips), len(reference)) < 2:
        return float("nan")
    width = max(float(np.median(pdist(reference))), 1e-12)

    def kernel(squared: Array) -> Array:
        return np.asarray(np.exp(-squared / (2 * width**2)))

    within = [kernel(pdist(rows, "sqeuclidean")).mean() for rows in (clips, reference)]
    return float(sum(within) - 2 * kernel(cdist(clips, reference, "sqeuclidean")).mean())
