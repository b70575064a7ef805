"""librosa, imported when first needed, by one process at a time."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from musicgen_lab.machine_lock import machine_lock

_USED_MODULES = ("feature.spectral", "filters", "onset")  # they import what else is compiled


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
    with machine_lock("librosa"):
        librosa: ModuleType = importlib.import_module("librosa")
        for module in _USED_MODULES:
            importlib.import_module(f"librosa.{module}")
    return librosa
