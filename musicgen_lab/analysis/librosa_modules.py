"""librosa, imported when first needed, by one process at a time."""

from __future__ import annotations

import functools
import getpass
import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock

_COMPILED_AT_IMPORT = (
    "core.audio",
    "core.constantq",
    "core.pitch",
    "core.spectrum",
    "feature.rhythm",
    "feature.spectral",
    "filters",
    "onset",
    "util.matching",
    "util.utils",
)


@functools.cache
def load_librosa() -> Any:
    """Import librosa, while no other process of this user does.

    librosa compiles functions with numba as it is imported. Processes that do so for the first time
    at the same time can damage numba's cache, and end with SIGSEGV (numba issue 10128).

    Returns
    -------
    module
        `librosa`, whose functions are looked up on first use.

    Examples
    --------
    >>> load_librosa().__name__
    'librosa'
    """
    lock = Path(tempfile.gettempdir()) / f"musicgen-lab-{getpass.getuser()}-librosa"
    with FileLock(lock):
        librosa: ModuleType = importlib.import_module("librosa")
        for module in _COMPILED_AT_IMPORT:
            importlib.import_module(f"librosa.{module}")
    return librosa
