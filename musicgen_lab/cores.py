"""Whether other programs leave a core of this machine free."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOAD_FILE = Path("/proc/loadavg")
_LOOKS, _PAUSE_S = 3, 0.002  # a moment alone says little


def all_cores_are_taken() -> bool:
    """Return whether as many other threads run as there are cores, in each of a few moments.

    The load average of a minute would not do: it stays low for long where another program takes all
    cores, and high after one that did. False where the system does not tell, as on others than
    Linux.
    """
    cores = os.cpu_count() or 1
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE_S)
        try:
            running = int(LOAD_FILE.read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False
        if running - 1 < cores:  # this thread runs too
            return False
    return True
