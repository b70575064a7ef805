"""Execution of notebooks by this interpreter, with checked parameters."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest, ReportFailed
from musicgen_lab.formatting import did_you_mean
from musicgen_lab.progress import bars_are_seen
from musicgen_lab.runs.interpreter import (
    NEUTRAL_FOLDER,
    interpreter_command,
    interpreter_environment,
)

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode


def run_notebook(
    notebook: Path,
    folder: Path,
    parameters: Mapping[str, Any],
    *,
    folders: Mapping[str, Path] | None = None,
    progress: bool = False,
) -> NotebookNode:
    """Run a notebook with papermill and return it with its outputs.

    Nothing is imported from the folders that it works on, which may be untrusted.

    Parameters
    ----------
    notebook : Path
        Not modified.
    folder : Path
        Where the returned notebook will be written.
    parameters : Mapping
        By name.
    folders : Mapping, optional
        Parameters that are folders, by name: the kernel gets absolute paths, the notebook that is
        returned has them relative to `folder`.
    progress : bool
        Show a bar; a line where a bar would fill a log.

    Raises
    ------
    InvalidRequest
        When it has no parameter of a name that is given.
    ReportFailed
        When it ends in an error.
    """
    import ipykernel  # noqa: F401  (the kernel's process would only say that it died)
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException, PapermillExecutionError
    from papermill.parameterize import parameterize_notebook

    folders = folders or {}
    check_parameters(notebook, {**parameters, **folders})
    is_bar = bars_are_seen()
    if progress and not is_bar:
        print("making the report", file=sys.stderr, flush=True)
    absolute = {name: str(path.absolute()) for name, path in folders.items()}
    relative = {name: os.path.relpath(path, folder) for name, path in folders.items()}
    try:
        done = execute_notebook(
            _unformatted(notebook),
            None,  # the caller writes it, and only if it is whole
            parameters={**parameters, **absolute},
            progress_bar={"desc": "Report", "unit": "step"} if progress and is_bar else False,
            kernel_manager_class=_kernel_of_this_interpreter(),
            shutdown_kernel="immediate",  # or it writes to the terminal as it ends, at times
            resources={"metadata": {"path": NEUTRAL_FOLDER}},
        )
    except PapermillExecutionError as error:
        message = re.sub(r"\s+", " ", str(error.evalue)).strip()
        raise ReportFailed(f"the report could not be made: {error.ename}: {message}") from error
    except (PapermillException, DeadKernelError, CellControlSignal, RuntimeError) as error:
        message = str(error).strip().split("\n")[0]
        raise ReportFailed(f"the report could not be made: {message}") from error
    done = parameterize_notebook(done, {**parameters, **relative})
    done.metadata.pop("papermill", None)  # it names paths of this machine
    return done


def check_parameters(
    notebook: Path, given: Mapping[str, Any], *, hidden: tuple[str, ...] = ()
) -> None:
    """Reject unknown parameters, about which papermill only warns.

    Parameters
    ----------
    notebook : Path
    given : Mapping
    hidden : tuple of str
        Parameters that the user cannot set.

    Raises
    ------
    InvalidRequest
        Naming the available ones.
    """
    from papermill import inspect_notebook

    available = [name for name in inspect_notebook(_unformatted(notebook)) if name not in hidden]
    for name, value in given.items():
        if name not in available:
            raise InvalidRequest(
                f"the report has no parameter {name!r}{did_you_mean(name, available)}; "
                f"its parameters are {', '.join(available)}",
                field=name,
                value=value,
            )


def refuse_unknown_parameters() -> None:
    """Reject an unknown parameter from inside a notebook that papermill runs.

    Papermill itself only warns about a misspelt name and runs with the default. To be called in the
    first cell after the parameters; without injected parameters it does nothing.

    Raises
    ------
    InvalidRequest
        Naming the available ones.
    """
    from IPython import get_ipython  # type: ignore[attr-defined]

    cells: list[str] = get_ipython().user_ns["In"]
    injected = [number for number, cell in enumerate(cells) if cell.startswith("# Parameters")]
    if not injected:
        return
    defined = [name for cell in cells[: injected[0]] for name in _assigned(cell)]
    for name in _assigned(cells[injected[0]]):
        if name not in defined:
            raise InvalidRequest(
                f"the notebook has no parameter {name!r}{did_you_mean(name, defined)}; "
                f"its parameters are {', '.join(defined)}",
                field=name,
            )


def _assigned(cell: str) -> list[str]:
    """Return the names that a cell assigns at its top level."""
    return [
        target.id
        for statement in ast.parse(cell).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _kernel_of_this_interpreter() -> type[AsyncKernelManager]:
    """Return a class of kernels of this interpreter, independent of those that are installed.

    A class, not a kernel: nbclient ends a kernel, and removes its files, if it started it itself.
    """
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(
                argv=interpreter_command(
                    "-Xfrozen_modules=off",  # or the debugger warns about them
                    "-m",
                    "ipykernel_launcher",
                    "-f",
                    "{connection_file}",
                    "--log-level=ERROR",
                ),
                env=interpreter_environment(),
                display_name="Python 3",
                language="python",
            )

    class Kernel(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, kernel_spec_manager=ThisInterpreter())

    return Kernel


def _unformatted(path: Path) -> str:
    """Escape the braces of a path, which papermill would take for format fields."""
    return str(path).replace("{", "{{").replace("}", "}}")
