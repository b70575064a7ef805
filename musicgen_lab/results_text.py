"""How well the clips of a run fit their prompts, kept in the run folder once it is known."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from musicgen_lab.analysis.perceptual import Clap
from musicgen_lab.atomic import write_atomically
from musicgen_lab.clip import decode_audio
from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

KEPT_IN = "text_similarity.json"


def text_similarities(frame: pd.DataFrame, run: RunFolder, source: str) -> list[float]:
    """Return the similarity of every row's sound and prompt; NaN where there is no sound.

    The model is loaded only where one is not known yet. Known ones are kept in
    `text_similarity.json`, by model, checksum of the sound and prompt, which can be deleted.

    Raises
    ------
    ModelUnavailable
        As `perceptual.Clap`.
    """
    path = run.path / KEPT_IN
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: they are measured again
        known = json.loads(path.read_text())
    asked = [
        json.dumps([source, row.audio_sha256, row.prompt]) if row.status == "ok" else None
        for row in frame.itertuples()
    ]
    sounds = dict(zip(asked, zip(frame["path"], frame["prompt"], strict=True), strict=True))
    new = {
        question: sound for question, sound in sounds.items() if question and question not in known
    }
    if new:
        clap = Clap(source)
        for question, (sound, prompt) in new.items():
            samples, sample_rate = decode_audio((run.path / sound).read_bytes())
            known[question] = clap.similarity(samples, sample_rate, prompt)
        # A folder that can only be read is answered all the same.
        with contextlib.suppress(RunFolderUnwritable):
            write_atomically(path, json.dumps(known, indent=0).encode())
    return [known[question] if question else float("nan") for question in asked]
