"""Every error that MusicGen Lab raises on purpose: one root, few leaves.

Each message is one line that gives the value, the limit and the way out, so that the command line
and the web service can show it as it is.
"""

from __future__ import annotations

from typing import Any


class MusicGenLabError(Exception):
    """The root of every error that this package raises on purpose."""


class InvalidRequest(MusicGenLabError, ValueError):
    """A request or a sweep that cannot be made as asked.

    Parameters
    ----------
    message : str
        One sentence: the field, its limit, the value given, and the way out.
    field : str or None
        The request field at fault, where there is one.
    value : Any
        The value given.
    """

    def __init__(self, message: str, *, field: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class ModelUnavailable(MusicGenLabError):
    """A model that does not exist, cannot be reached, is damaged, or is of a kind not served."""


class BackendUnavailable(MusicGenLabError):
    """A backend that is unknown or cannot be used here, such as one whose extra is missing."""


class RunFolderError(MusicGenLabError):
    """A folder that is not a run's, or a run folder that cannot be read."""


class RunFolderUnwritable(RunFolderError):
    """A run folder that is read-only or on a full disk; what was finished is kept."""


class ReportFailed(MusicGenLabError):
    """A report that could not be made; the clips it would have shown are untouched."""


class MusicGenLabWarning(UserWarning):
    """Something that the user should know but that stops nothing, such as a damaged file."""
