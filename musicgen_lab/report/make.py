"""`make_report`: a run's report, as a notebook with outputs and a page to share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicgen_lab.analysis.features import chosen_features
from musicgen_lab.errors import InvalidRequest, packages_needed
from musicgen_lab.report.export import FORMATS, check_formats, write_page
from musicgen_lab.report.notebook import check_parameters, run_notebook
from musicgen_lab.report.sections import report_title
from musicgen_lab.runs.run_folder import RunFolder

NOTEBOOKS = Path(__file__).parent / "notebooks"
NOTEBOOK = NOTEBOOKS / "sweep_report.ipynb"
FOLDER_PARAMETER = "run_folder"


@packages_needed("a report")
def make_report(
    folder: str | Path | RunFolder,
    *,
    parameters: Mapping[str, Any] | None = None,
    title: str | None = None,
    features: Sequence[str] | None = None,
    self_contained: bool | None = None,
    formats: Sequence[str] = FORMATS,
    out: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Make a report of a run: the page `report.html` without code, and its notebook `report.ipynb`.

    Papermill runs the notebook `sweep_report.ipynb` with the run folder as its parameter, in a
    kernel of this interpreter. The page needs no network; its audio and pictures are embedded in
    it, or in `listening/` beside it if they are large. Neither file is changed unless the whole
    report could be made.

    Parameters
    ----------
    folder : str, Path or RunFolder
        The run folder; of one that is open already, nothing is read again here.
    parameters : Mapping, optional
        Other parameters of the notebook, by name.
    title : str, optional
        The heading, in place of the prompt.
    features : sequence of str, optional
        The features to report; see `analysis.features.chosen_features` for the default.
    self_contained : bool, optional
        Embed the audio and pictures in the page, up to 32 MB, so that it is a single file; by
        default this is done up to 20 MB.
    formats : sequence of str
        Which to write: "html", "ipynb" or both. An existing file of the other format is left
        unchanged. For a PDF, print the page from a browser.
    out : str or Path, optional
        Another folder for the report, such as for a run that can only be read: the clips are copied
        to it, since the report links to them.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        Of `report.html`, or of `report.ipynb` if only that is written.

    Raises
    ------
    InvalidRequest
        When a parameter of the notebook, a feature or a format is unknown, the audio is too large
        to be embedded, or there is no page to embed it in.
    RunFolderError, RunFolderUnwritable
        When there is no run in the folder, or it cannot be written.
    ReportFailed
        When the notebook ends in an error.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> lab.make_report("runs/guitar")  # doctest: +SKIP
    PosixPath('runs/guitar/report.html')
    """
    kept = check_formats(formats)
    if self_contained and "html" not in kept:
        raise InvalidRequest(
            f"only the page can be self-contained; add html to the formats {', '.join(kept)}",
            field="formats",
            value=kept,
        )
    run = folder if isinstance(folder, RunFolder) else RunFolder.started(folder)
    run = run if out is None else run.copy_to(out)
    given = dict(parameters or {}) | ({"title": title} if title is not None else {})
    if features is not None:
        given["features"] = chosen_features(features)
    check_report_parameters(given)
    list(run.store.records())  # warns of damaged files here rather than in the kernel
    folders = {FOLDER_PARAMETER: run.path}
    notebook = run_notebook(NOTEBOOK, run.path, given, folders=folders, progress=progress)
    heading = report_title((r.prompt for r in run.requests()), title or "")
    return write_page(notebook, run.path, heading, self_contained=self_contained, formats=kept)


def check_report_parameters(given: Mapping[str, Any]) -> None:
    """Reject unknown parameters and features.

    Parameters
    ----------
    given : Mapping
        By name.

    Raises
    ------
    InvalidRequest
        Naming the available ones.
    """
    check_parameters(NOTEBOOK, given, hidden=(FOLDER_PARAMETER,))
    chosen_features(given.get("features"))
