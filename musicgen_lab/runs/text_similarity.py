"""How well the clips of a run fit their prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musicgen_lab.analysis.perceptual import Clap
from musicgen_lab.runs.derived import judged
from musicgen_lab.runs.run_folder import RunFolder

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
    found = judged(
        frame,
        run,
        lambda name: Clap(name).similarity,
        source=source,
        beside=["prompt"],
        kept_in=KEPT_IN,
    )
    return [float("nan") if similarity is None else similarity for similarity in found]
