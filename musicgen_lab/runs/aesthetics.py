"""How good the clips of a run sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musicgen_lab.analysis.aesthetics import SCORES, Aesthetics
from musicgen_lab.runs.derived import judged
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

KEPT_IN = "aesthetics.json"


def aesthetic_scores(frame: pd.DataFrame, run: RunFolder, source: str) -> dict[str, list[float]]:
    """Return the scores of every row's sound, by name; NaN where there is no sound.

    The model is loaded only where one is not known yet. Known ones are kept in
    `aesthetics.json`, by model and checksum of the sound, which can be deleted.

    Raises
    ------
    ModelUnavailable
        As `aesthetics.Aesthetics`.
    """
    found = judged(frame, run, lambda name: Aesthetics(name).scores, source=source, kept_in=KEPT_IN)
    return {
        name: [float("nan") if scores is None else scores[name] for scores in found]
        for name in SCORES
    }
