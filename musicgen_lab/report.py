"""`make_report`: a run folder becomes a notebook with its outputs and a page to pass on."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.atomic import write_atomically
from musicgen_lab.errors import InvalidRequest, ReportFailed
from musicgen_lab.report_sections import report_title
from musicgen_lab.run_folder import RunFolder

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

TEMPLATE = "sweep_report.ipynb"
FOLDER_PARAMETER = "run_folder"
PACKAGE = Path(__file__).parent


def make_report(
    folder: str | Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    title: str | None = None,
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
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        Of `report.html`.

    Raises
    ------
    InvalidRequest
        When the notebook has no parameter of a name that is given.
    RunFolderError, RunFolderUnwritable
        When there is no run in the folder, or it cannot be written.
    ReportFailed
        When the notebook cannot be found or ends in an error.
    """
    run = RunFolder.started(folder)
    template = find_template()
    given = dict(parameters or {}) | ({"title": title} if title is not None else {})
    _check_parameters(template, given)
    notebook = _execute(template, run.path, {**given, FOLDER_PARAMETER: "."}, progress=progress)
    notebook.metadata["title"] = report_title((r.prompt for r in run.asked()), title or "")
    page = _page(notebook)
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


def _check_parameters(template: Path, given: Mapping[str, Any]) -> None:
    """Refuse what papermill only warns of: a parameter that the notebook does not have."""
    from papermill import inspect_notebook

    there = [name for name in inspect_notebook(_unformatted(template)) if name != FOLDER_PARAMETER]
    for name, value in given.items():
        if name not in there:
            raise InvalidRequest(
                f"the report has no parameter {name!r}; its parameters are {', '.join(there)}",
                field=name,
                value=value,
            )


def _execute(
    template: Path, folder: Path, parameters: Mapping[str, Any], *, progress: bool
) -> NotebookNode:
    """Run the notebook in the run folder and return it with its outputs."""
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException, PapermillExecutionError

    try:
        notebook = execute_notebook(
            _unformatted(template),
            None,  # written afterwards, and only if it is whole
            parameters=parameters,
            progress_bar={"desc": "Report", "unit": "step"} if progress else False,
            km=_kernel(),
            resources={"metadata": {"path": str(folder)}},
        )
    except PapermillExecutionError as error:
        message = re.sub(r"\s+", " ", str(error.evalue)).strip()
        raise ReportFailed(f"the report could not be made: {error.ename}: {message}") from error
    except (PapermillException, DeadKernelError, CellControlSignal, RuntimeError) as error:
        message = str(error).strip().split("\n")[0]
        raise ReportFailed(f"the report could not be made: {message}") from error
    notebook.metadata.pop("papermill", None)  # it names paths of this machine
    return notebook


def _kernel() -> AsyncKernelManager:
    """Return a kernel of this very interpreter, whatever kernels the user has installed."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(
                argv=[
                    sys.executable,
                    "-Xfrozen_modules=off",  # or the debugger that nobody uses warns of them
                    "-m",
                    "ipykernel_launcher",
                    "-f",
                    "{connection_file}",
                    "--log-level=ERROR",
                ],
                display_name="Python 3",
                language="python",
            )

    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisInterpreter())


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


def _notebook_bytes(notebook: NotebookNode) -> bytes:
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()


def _unformatted(path: Path) -> str:
    """Return a path that papermill leaves as it is: it takes braces for format fields."""
    return str(path).replace("{", "{{").replace("}", "}}")
