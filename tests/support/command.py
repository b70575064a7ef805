"""Run the installed `musicgen-lab` command as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MUSICGEN_LAB = Path(sys.executable).with_name("musicgen-lab")
PROMPT = ("--prompt", "calm acoustic guitar melody")


def run_command(*arguments, timeout=300, **options):
    """Return the finished process, with its output as text."""
    return subprocess.run(
        [MUSICGEN_LAB, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **options,
    )
