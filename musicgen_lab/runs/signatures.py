"""Keeps the signatures of a run's clips, by which they are compared, in the run folder."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.analysis.distances import SIGNATURE_VERSION
from musicgen_lab.analysis.spectrogram import N_MELS, Array
from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.runs.measuring import measure_files
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def signatures_of(frame: pd.DataFrame, run: RunFolder) -> Array:
    """Return the signature of every row, (rows, N_MELS + 12); NaN where there is no sound.

    They are measured once and kept in `signatures.npz`, by the checksum of the sound, which can be
    deleted.
    """
    kept_in = run.path / "signatures.npz"
    known = _read(kept_in)
    sounds = frame.dropna(subset=["audio_sha256"]).drop_duplicates("audio_sha256")
    new = sounds[~sounds["audio_sha256"].isin(known)]
    if len(new):
        measured = measure_files("signature", [run.path / path for path in new["path"]])
        known |= dict(zip(new["audio_sha256"], np.array(measured), strict=True))
        _write(kept_in, known)
    nothing = np.full(N_MELS + 12, np.nan)
    return np.array([known.get(checksum, nothing) for checksum in frame["audio_sha256"]])


def _read(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as saved:
            if saved["version"] != SIGNATURE_VERSION:
                return {}
            return dict(zip(saved["sha256"].tolist(), saved["signatures"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}  # missing, damaged or out of date: they are measured again


def _write(path: Path, signatures: dict[str, Array]) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        version=SIGNATURE_VERSION,
        sha256=np.array(list(signatures)),
        signatures=np.array(list(signatures.values()), np.float32),
    )
    # A folder that can only be read can be compared all the same.
    with contextlib.suppress(RunFolderUnwritable):
        write_atomically(path, content.getvalue())
