"""Run the installed `musicgen-lab` command as a user would, or what it does in this process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import pytest

from musicgen_lab import cli

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


def run_here(*arguments, cwd="."):
    """Return the same without a process, whose start takes seconds."""
    words = ["musicgen-lab", *map(str, arguments)]
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        contextlib.chdir(cwd),
        warnings.catch_warnings(),
        patch("sys.argv", words),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    return subprocess.CompletedProcess(
        words, ended.value.code, output.getvalue(), errors.getvalue()
    )
