"""The exceptions of MusicGen Lab, which share one base class.

Each message is one line with the value, the limit and what to do, so that the command line and the
web service can show it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class MusicGenLabError(Exception):
    """The base class of the package's errors."""


class InvalidRequest(MusicGenLabError, ValueError):
    """A request or a sweep that is invalid.

    Parameters
    ----------
    message : str
        One sentence: the field, its limit, the value, and what to do.
    field : str or None
        The request field at fault, if it is one.
    value : Any
        The invalid value.
    """

    def __init__(self, message: str, *, field: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class ModelUnavailable(MusicGenLabError):
    """A model that does not exist, cannot be fetched, is damaged, or is of an unsupported kind."""


class BackendUnavailable(MusicGenLabError):
    """A backend that is unknown or cannot be used here, such as one whose extra is missing."""


class PackageMissing(MusicGenLabError, ImportError):
    """A package that is needed and not installed; the message says how to install it."""


class RunFolderError(MusicGenLabError):
    """A folder that is not a run folder, or that cannot be read."""


class RunFolderUnwritable(RunFolderError):
    """A run folder that is read-only or on a full disk; finished clips are kept."""


class ReportFailed(MusicGenLabError):
    """A report that could not be made; its clips are untouched."""


class MusicGenLabWarning(UserWarning):
    """A problem that does not stop the work, such as a damaged file."""


_INSTALL = {
    **dict.fromkeys(
        ("torch", "transformers", "tokenizers", "safetensors", "numba"),
        "pip install 'musicgen-lab[local]'",
    ),
    **dict.fromkeys(
        ("fastapi", "uvicorn", "prometheus_client"), "pip install 'musicgen-lab[local,serve]'"
    ),
    "audiocraft": "type `uv sync --group reference` in a checkout",
}


@contextmanager
def packages_needed(what: str) -> Iterator[None]:
    """Turn the ModuleNotFoundError of another package into one line that says what to install.

    Parameters
    ----------
    what : str
        What needs the package, such as "a report".

    Raises
    ------
    PackageMissing
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "musicgen_lab":
            raise
        install = _INSTALL.get(package, f"pip install musicgen-lab, which brings {package}")
        raise PackageMissing(f"{what} needs {package}, not installed here: {install}") from error
