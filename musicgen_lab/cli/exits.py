"""Exit codes, and the output of errors as one line."""

from __future__ import annotations

import click

EXIT_SOME_FAILED = 1
EXIT_BAD_USAGE = 2
EXIT_INTERRUPTED = 130  # what shells expect after Ctrl-C


def fail(message: str, code: int) -> int:
    """Print an error as one line on standard error and return the exit code."""
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code
