"""`machine_lock`: what one process of a user does at a time on a machine."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

from filelock import FileLock


def machine_lock(name: str) -> FileLock:
    """Return a lock that one process of this user holds at a time; it is released when that ends.

    The lock file is on this machine's own disk: a network volume may not support locks.

    Parameters
    ----------
    name : str
        What is locked; part of the file's name.

    Examples
    --------
    >>> with machine_lock("example") as lock:
    ...     lock.is_locked
    True
    """
    user = getattr(os, "getuid", getpass.getuser)()  # a container's user may have no name
    return FileLock(Path(tempfile.gettempdir()) / f"musicgen-lab-{user}-{name}")
