"""Measurements of a run's clips besides their features, cached in the run folder.

Signatures, from which distances are computed, are in `signatures.npz`. What comes from models is in
`text_similarity.json`, `clap_embeddings.json` and `aesthetics.json`, and what is measured of the
windows of long clips in `windows.json`. The files can be deleted: missing values are measured
again.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter

from musicgen_lab.analysis.aesthetics import SCORES, Aesthetics
from musicgen_lab.analysis.distances import SIGNATURE_VERSION
from musicgen_lab.analysis.drift import (
    WINDOW_MEASURES,
    WINDOWS_VERSION,
    WindowValues,
    measure_windows,
)
from musicgen_lab.analysis.perceptual import Clap
from musicgen_lab.analysis.spectrogram import N_MELS, Array
from musicgen_lab.clip import decode_audio
from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.runs.atomic_io import read_file, write_atomically
from musicgen_lab.runs.measuring import measure_files
from musicgen_lab.runs.run_folder import (
    AESTHETICS_FILE,
    EMBEDDINGS_FILE,
    SIGNATURES_FILE,
    SIMILARITIES_FILE,
    WINDOWS_FILE,
)
from musicgen_lab.runs.run_table import RunTable, seams_of

MAX_BYTES = 1_000_000_000  # of a file: a million clips
EMBEDDING_MAX = 10_000  # numbers; CLAP's has 512


def _check_scores(scores: dict[str, float]) -> dict[str, float]:
    if scores.keys() != SCORES.keys():
        raise ValueError(f"the scores are {', '.join(SCORES)}")
    return scores


def _check_windows(values: dict[str, float]) -> dict[str, float]:
    names = {"start_s", "end_s", *(measure.name for measure in WINDOW_MEASURES)}
    if values.keys() != names:
        raise ValueError(f"the measures of a window are {', '.join(sorted(names))}")
    return values


def _check_cosine(value: float) -> float:
    if abs(value) > 1.001:  # NaN, of a silent clip, is not
        raise ValueError("a similarity is from -1 to 1")
    return value


_SIMILARITIES: TypeAdapter[Any] = TypeAdapter(
    dict[str, Annotated[float, AfterValidator(_check_cosine)]]
)
_EMBEDDINGS: TypeAdapter[Any] = TypeAdapter(
    dict[str, Annotated[list[float], Field(max_length=EMBEDDING_MAX)]]
)
_SCORES: TypeAdapter[Any] = TypeAdapter(
    dict[str, Annotated[dict[str, float], AfterValidator(_check_scores)]]
)
_WINDOWS: TypeAdapter[Any] = TypeAdapter(
    dict[str, list[Annotated[dict[str, float], AfterValidator(_check_windows)]]]
)


def signatures(table: RunTable) -> Array:
    """Return the signature of every row's clip.

    Returns
    -------
    np.ndarray [shape=(rows, N_MELS + 12)]
        NaN where there is no clip.
    """
    path = table.folder / SIGNATURES_FILE
    stored = _read_signatures(path)
    clips = table.frame.dropna(subset=["audio_sha256"]).drop_duplicates("audio_sha256")
    new = clips[~clips["audio_sha256"].isin(stored)]
    if len(new):
        measured = measure_files("signature", [table.folder / path for path in new["path"]])
        stored |= dict(zip(new["audio_sha256"], np.array(measured, np.float32), strict=True))
        _write_signatures(path, stored)
    absent = np.full(N_MELS + 12, np.nan)
    return np.array([stored.get(checksum, absent) for checksum in table.frame["audio_sha256"]])


def text_similarities(table: RunTable, source: str) -> list[float]:
    """Return the similarity of every row's clip and prompt; NaN where there is no clip.

    The model is loaded only where a value is missing.

    Raises
    ------
    ModelUnavailable
        As `perceptual.Clap`.
    """
    values = _stored_outputs(
        table,
        lambda name: Clap(name).similarity,
        source=source,
        arguments=[[row["prompt"]] for row in table.records],
        file=SIMILARITIES_FILE,
        schema=_SIMILARITIES,
    )
    return [float("nan") if value is None else value for value in values]


def clap_embeddings(table: RunTable, source: str) -> Array:
    """Return the CLAP embedding of every row's clip; NaN where there is no clip or it is silent.

    The model is loaded only where a value is missing.

    Returns
    -------
    np.ndarray [shape=(rows, d)]

    Raises
    ------
    ModelUnavailable
        As `perceptual.Clap`.
    """

    def load(name: str) -> Callable[..., list[float]]:
        clap = Clap(name)
        return lambda samples, sample_rate: clap.embed_sound(samples, sample_rate).tolist()

    values = _stored_outputs(table, load, source=source, file=EMBEDDINGS_FILE, schema=_EMBEDDINGS)
    size = next((len(value) for value in values if value is not None), 1)
    absent = [float("nan")] * size
    return np.array([absent if value is None else value for value in values], float)


def aesthetic_scores(table: RunTable, source: str) -> dict[str, list[float]]:
    """Return the aesthetic scores of every row's clip, by name; NaN where there is no clip.

    The model is loaded only where a value is missing.

    Raises
    ------
    ModelUnavailable
        As `aesthetics.Aesthetics`.
    """
    values = _stored_outputs(
        table,
        lambda name: Aesthetics(name).scores,
        source=source,
        file=AESTHETICS_FILE,
        schema=_SCORES,
    )
    return {
        name: [float("nan") if scores is None else scores[name] for scores in values]
        for name in SCORES
    }


def window_values(table: RunTable) -> list[list[WindowValues]]:
    """Return the measures of each window of every row's clip; none of a clip with one window.

    Where the windows join is known from the request; see `analysis.drift`.
    """
    seams_s = [seams_of(record) if record["status"] == "ok" else [] for record in table.records]
    values = _stored_outputs(
        table,
        lambda _: measure_windows,
        source=f"windows {WINDOWS_VERSION}",
        arguments=[[seams] if seams else None for seams in seams_s],
        file=WINDOWS_FILE,
        schema=_WINDOWS,
    )
    return [windows or [] for windows in values]


def _stored_outputs(
    table: RunTable,
    load: Callable[[str], Callable[..., Any]],
    *,
    source: str,
    arguments: Sequence[Sequence[Any] | None] | None = None,
    file: str,
    schema: TypeAdapter[Any],
) -> list[Any]:
    """Return what a model gives, or a measure, for every row's clip; None where there is no clip.

    Parameters
    ----------
    table : RunTable
    load : callable
        From the name of a model to a function of (samples, sample rate, the row's arguments) whose
        result JSON can hold. Called only where an output is missing.
    source : str
        The name of the model, or of the measure.
    arguments : sequence of sequence, optional
        What the function takes besides the samples, for each row, and None for rows without an
        output; nothing besides them if not given.
    file : str
        The file in the run folder that keeps outputs by model, checksum and arguments.
    schema : TypeAdapter
        Of the file's content.
    """
    arguments = [()] * len(table.records) if arguments is None else arguments
    path = table.folder / file
    stored: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: measured again
        stored = schema.validate_json(
            read_file(path, root=table.folder, max_bytes=MAX_BYTES), strict=True
        )
    keys = [
        json.dumps([source, row["audio_sha256"], *given])
        if row["status"] == "ok" and given is not None
        else None
        for row, given in zip(table.records, arguments, strict=True)
    ]
    new = {
        key: (row["path"], given)
        for key, row, given in zip(keys, table.records, arguments, strict=True)
        if key is not None and given is not None and key not in stored
    }
    if new:
        model = load(source)
        try:
            for key, (path_in_run, given) in new.items():
                samples, sample_rate = decode_audio((table.folder / path_in_run).read_bytes())
                stored[key] = model(samples, sample_rate, *given)
        finally:  # what was measured before a Ctrl-C is kept
            # A read-only folder is not an error: the values are just not cached.
            with contextlib.suppress(RunFolderUnwritable):
                write_atomically(path, json.dumps(stored, indent=0).encode())
    return [stored[key] if key is not None else None for key in keys]


def _read_signatures(path: Path) -> dict[str, Array]:
    try:
        content = read_file(path, root=path.parent, max_bytes=MAX_BYTES)
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            if saved["version"] != SIGNATURE_VERSION:
                return {}
            return dict(zip(saved["sha256"].tolist(), saved["signatures"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}  # missing, damaged or out of date: measured again


def _write_signatures(path: Path, values: dict[str, Array]) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        version=SIGNATURE_VERSION,
        sha256=np.array(list(values)),
        signatures=np.array(list(values.values()), np.float32),
    )
    # A folder that can only be read can be compared all the same.
    with contextlib.suppress(RunFolderUnwritable):
        write_atomically(path, content.getvalue())
