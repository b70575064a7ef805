"""`make_comparison`: two runs become one page of paired differences, to read and to listen to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from musicgen_lab.report.export import write_page
from musicgen_lab.report.make import NOTEBOOKS
from musicgen_lab.report.notebook import run_notebook
from musicgen_lab.results import Results
from musicgen_lab.runs.atomic_io import unwritable
from musicgen_lab.runs.run_folder import refuse_run
from musicgen_lab.stats.comparison import Comparison
from musicgen_lab.stats.study_tables import chosen_features

NOTEBOOK = NOTEBOOKS / "comparison_report.ipynb"


def make_comparison(
    run_a: str | Path,
    run_b: str | Path,
    out: str | Path,
    *,
    features: Sequence[str] | None = None,
    title: str | None = None,
    self_contained: bool = False,
    progress: bool = True,
) -> Path:
    """Compare two runs, such as of two models, in pairs of clips that were asked for alike.

    Parameters
    ----------
    run_a, run_b : str or Path
        The run folders.
    out : str or Path
        The folder for `report.html`, `report.ipynb` and the sounds; created where it is missing.
    features : sequence of str, optional
        See `musicgen_lab.stats.study_tables.chosen_features`.
    title : str, optional
        The heading, in place of what differs.
    self_contained : bool
        As for `musicgen_lab.report.make.make_report`.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        Of `report.html`.

    Raises
    ------
    InvalidRequest
        When the runs have no clips in common, there is no such feature, or `out` is a run.
    RunFolderError, RunFolderUnwritable
        When there is no run in a folder, or `out` cannot be written.
    ReportFailed
        When the notebook ends in an error.
    """
    comparison = Comparison.of(Results.open(run_a), Results.open(run_b))
    names = chosen_features(features)
    folder = Path(out)
    refuse_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    first, second = (os.path.relpath(run, folder) for run in (run_a, run_b))
    given = {"run_a": first, "run_b": second, "features": names, "title": title or ""}
    notebook = run_notebook(NOTEBOOK, folder, given, progress=progress)
    heading = title or " against ".join(reversed(comparison.names()))
    return write_page(notebook, folder, heading, self_contained=self_contained)
