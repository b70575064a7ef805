"""Fresh Python interpreters that import nothing from a data folder or from the current folder.

A folder of clips or of measurements may be untrusted, and Python looks for modules in the current
folder first: a file `numpy.py` there would be executed. Workers and kernels are therefore
started in safe-path mode, in a folder that holds no data, and are given absolute paths.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NEUTRAL_FOLDER = Path(sys.executable).anchor
"""The working directory of a fresh interpreter: the root of the file system."""

_PACKAGE_FOLDER = str(Path(__file__).resolve().parents[2])  # of musicgen_lab, for a checkout


def interpreter_command(*arguments: str) -> list[str]:
    """Return the command that runs this interpreter without the current folder on its path.

    Parameters
    ----------
    *arguments : str
        Of the interpreter, such as "-m" and the name of a module.
    """
    return [sys.executable, "-P", *arguments]


def interpreter_environment() -> dict[str, str]:
    """Return the environment in which it finds the modules that this process finds.

    The current folder and relative entries are left out of the import path; safe-path mode is
    passed on to the processes that it starts itself.
    """
    here = Path.cwd()
    search = [entry for entry in sys.path if Path(entry).is_absolute() and Path(entry) != here]
    path = os.pathsep.join(dict.fromkeys([*search, _PACKAGE_FOLDER]))
    return os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}
