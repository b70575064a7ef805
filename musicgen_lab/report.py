"""`make_report`: a run folder becomes a notebook with its outputs and a page to pass on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from musicgen_lab.atomic import write_atomically
from musicgen_lab.errors import ReportFailed
from musicgen_lab.findings import chosen_features
from musicgen_lab.listening_copies import LISTENING_FOLDER, check_embedded, data_uri
from musicgen_lab.notebook import check_parameters, run_notebook
from musicgen_lab.report_sections import report_title
from musicgen_lab.run_folder import RunFolder

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATE = "sweep_report.ipynb"
FOLDER_PARAMETER = "run_folder"
PACKAGE = Path(__file__).parent


def make_report(
    folder: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    title: str | None = None,
    features: Sequence[str] | None = None,
    self_contained: bool = False,
    progress: bool = True,
) -> Path:
    """Make a report of a run: `report.ipynb`, and `report.html` without code.

    Papermill runs the notebook `sweep_report.ipynb` with the run folder as its parameter, in a
    kernel of this interpreter. The page needs no network; its sounds and pictures lie beside it
    in `listening/`. Neither file is touched unless the whole report could be made.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    parameters : Mapping, optional
        Other parameters of the notebook, by name.
    title : str, optional
        The heading, in place of the prompt.
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.findings.chosen_features` for the default ones.
    self_contained : bool
        Put the sounds and pictures inside the page, up to 32 MB, so that it is a single file.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        Of `report.html`.

    Raises
    ------
    InvalidRequest
        When the notebook has no parameter of a name that is given, there is no such feature, or
        the sounds are too many to be put inside the page.
    RunFolderError, RunFolderUnwritable
        When there is no run in the folder, or it cannot be written.
    ReportFailed
        When the notebook cannot be found or ends in an error.
    """
    run = RunFolder.started(folder)
    template = find_template()
    given = dict(parameters or {}) | ({"title": title} if title is not None else {})
    if features is not None:
        given["features"] = chosen_features(features)
    check_parameters(template, given, hidden=(FOLDER_PARAMETER,))
    notebook = run_notebook(template, run.path, {**given, FOLDER_PARAMETER: "."}, progress=progress)
    notebook.metadata["title"] = report_title((r.prompt for r in run.asked()), title or "")
    page = _page(notebook)
    if self_contained:
        page = _with_files_inside(page, run.path)
    write_atomically(run.path / "report.ipynb", _notebook_bytes(notebook))
    write_atomically(run.path / "report.html", page.encode("utf-8"))
    return run.path / "report.html"


def find_template() -> Path:
    """Return the path of the report's notebook, in the installed package or in a checkout.

    Raises
    ------
    ReportFailed
        When it is in neither.
    """
    places = (PACKAGE / "notebooks" / TEMPLATE, PACKAGE.parent / "notebooks" / TEMPLATE)
    for place in places:
        if place.is_file():
            return place
    raise ReportFailed(
        f"{TEMPLATE} is missing from {places[0].parent} and {places[1].parent}; "
        "install musicgen-lab again"
    )


def _page(notebook: NotebookNode) -> str:
    """Turn an executed notebook into a page without code that needs no network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="report_template",
        extra_template_basedirs=[str(PACKAGE)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(notebook)
    return str(page)


def _with_files_inside(page: str, folder: Path) -> str:
    """Replace links to sounds and pictures by what they lead to, and other links by their text."""
    size = len(page)

    def embed(link: re.Match[str]) -> str:
        nonlocal size
        path = folder / unquote(link["path"])
        size += path.stat().st_size * 4 // 3
        check_embedded(size, "leave out --self-contained")
        return f'{link["attribute"]}="{data_uri(path.read_bytes(), path.suffix)}"'

    page = re.sub(r'<a href="(?:clips/|results\.parquet)[^"]*">([^<]*)</a>', r"\1", page)
    return re.sub(
        rf'(?P<attribute>src|data-matched)="(?P<path>{LISTENING_FOLDER}/[^"]+)"', embed, page
    )


def _notebook_bytes(notebook: NotebookNode) -> bytes:
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()
