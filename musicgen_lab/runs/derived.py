"""What a model says of the clips of a run, kept in the run folder once it is known."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from musicgen_lab.clip import decode_audio
from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


def judged(
    frame: pd.DataFrame,
    run: RunFolder,
    load: Callable[[str], Callable[..., Any]],
    *,
    source: str,
    beside: Sequence[str] = (),
    kept_in: str,
) -> list[Any]:
    """Return what a model says of every row's sound; None where there is no sound.

    Parameters
    ----------
    frame : pandas.DataFrame
        The rows.
    run : RunFolder
        Where the sounds are.
    load : callable
        From the name of a model to what answers (samples, sample rate, the row's `beside`) with
        something that JSON can hold. Called only where an answer is not known yet.
    source : str
        The name of the model.
    beside : sequence of str
        Columns that are asked about together with the sound.
    kept_in : str
        The file in the run folder with the known answers, by model, checksum of the sound and
        `beside`, which can be deleted.
    """
    path = run.path / kept_in
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: they are measured again
        known = json.loads(path.read_text())
    rows = frame.to_dict("records")
    asked = [
        json.dumps([source, row["audio_sha256"], *(row[name] for name in beside)])
        if row["status"] == "ok"
        else None
        for row in rows
    ]
    new = {
        question: row
        for question, row in zip(asked, rows, strict=True)
        if question and question not in known
    }
    if new:
        answer = load(source)
        for question, row in new.items():
            samples, sample_rate = decode_audio((run.path / row["path"]).read_bytes())
            known[question] = answer(samples, sample_rate, *(row[name] for name in beside))
        # A folder that can only be read is answered all the same.
        with contextlib.suppress(RunFolderUnwritable):
            write_atomically(path, json.dumps(known, indent=0).encode())
    return [known[question] if question else None for question in asked]
