"""How far the clips of every cell are from a folder of reference recordings."""

from __future__ import annotations

from dataclasses import dataclass
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

    The kernel audio distance of CLAP embeddings, which is right on average for few clips, too, and
    the Fréchet audio distance, which is not: it falls as clips are added, so it compares only
    cells of the same, large `n`. Few clips scatter in both: compare cells only with the same
    reference, and by more than their distances differ between halves of the seeds.

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
        One row per cell: the swept fields, `n` (clips that are not silent), `distance` (kernel)
        and `frechet_distance`; NaN for under two clips.

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
    sounds = np.array([clap.embed_sound(*decode_audio(path.read_bytes())) for path in files])
    audible = np.isfinite(sounds).all(axis=1)
    if audible.sum() < REFERENCES_FEWEST:
        raise InvalidRequest(
            f"{folder} has {audible.sum()} sound files that are not silent; a reference needs at "
            f"least {REFERENCES_FEWEST}",
            field="folder",
            value=str(folder),
        )
    reference = ReferenceSet.of(sounds[audible])
    embeddings = clap_embeddings(table, source)
    audible = np.isfinite(embeddings).all(axis=1)
    by = table.cell_fields
    cells = table.frame.groupby(by, sort=False, dropna=False)
    rows = cells.size().reset_index()[by]
    groups = cells.ngroup().to_numpy()
    members = [embeddings[(groups == cell) & audible] for cell in range(cells.ngroups)]
    return rows.assign(
        n=[len(clips) for clips in members],
        distance=[reference.kernel_distance(clips) for clips in members],
        frechet_distance=[reference.frechet_distance(clips) for clips in members],
    )


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """Embeddings of recordings, with which sets of clips are compared.

    Attributes
    ----------
    embeddings : np.ndarray [shape=(n, d)]
        n is 2 or more.
    width : float
        Of the Gaussian kernel: the median distance between two references.
    similarity : float
        The mean kernel of two references.
    """

    embeddings: Array
    width: float
    similarity: float

    @classmethod
    def of(cls, embeddings: Array) -> ReferenceSet:
        """Compare the references with each other."""
        from scipy.spatial.distance import pdist

        apart = pdist(embeddings)
        width = max(float(np.median(apart)), 1e-12)
        return cls(embeddings, width, float(_gaussian(apart**2, width).mean()))

    def kernel_distance(self, clips: Array) -> float:
        """Return the kernel audio distance of a set of embeddings [1]_.

        The unbiased estimate of the squared maximum mean discrepancy, with a Gaussian kernel.

        Parameters
        ----------
        clips : np.ndarray [shape=(n, d)]

        Returns
        -------
        float
            0 on average for a set of the same distribution, hence also a little below it; 2 at
            most. NaN where the set has under two rows.

        References
        ----------
        .. [1] Chung, Y., et al. (2025). KAD: no more FAD! An effective and efficient evaluation
           metric for audio generation. arXiv:2502.15602.
        """
        from scipy.spatial.distance import cdist, pdist

        if len(clips) < 2:
            return float("nan")
        within = _gaussian(pdist(clips, "sqeuclidean"), self.width).mean()
        between = _gaussian(cdist(clips, self.embeddings, "sqeuclidean"), self.width).mean()
        return float(within + self.similarity - 2 * between)

    def frechet_distance(self, clips: Array) -> float:
        """Return the Fréchet audio distance of a set of embeddings [1]_.

        That of two normal distributions with the means and covariances of the two sets. It is too
        large for few clips: a covariance of d dimensions needs many more than d of them [2]_, and
        CLAP's embeddings have 512.

        Parameters
        ----------
        clips : np.ndarray [shape=(n, d)]

        Returns
        -------
        float
            0 or more. NaN where the set has under two rows.

        References
        ----------
        .. [1] Kilgour, K., et al. (2019). Fréchet audio distance: a reference-free metric for
           evaluating music enhancement algorithms. Interspeech.
        .. [2] Gui, A., et al. (2024). Adapting Fréchet audio distance for generative music
           evaluation. ICASSP.
        """
        if len(clips) < 2:
            return float("nan")
        sets = (clips, self.embeddings)
        means = [rows.mean(axis=0) for rows in sets]
        # Covariances are A'A and B'B; the trace of the root of their product is the sum of the
        # singular values of AB', which are those of RS' where R and S are the triangles of A and B:
        # no more rows than the set, and no more than d.
        a, b = (
            np.linalg.qr(x - m, mode="r") / np.sqrt(len(x) - 1)
            for x, m in zip(sets, means, strict=True)
        )
        traces = np.sum(a**2) + np.sum(b**2) - 2 * np.linalg.norm(a @ b.T, "nuc")
        return float(max(0.0, np.sum((means[0] - means[1]) ** 2) + traces))


def _gaussian(squared: Array, width: float) -> Array:
    return np.asarray(np.exp(-squared / (2 * width**2)))
