"""Exit codes, and the output of errors as one line."""

from __future__ import annotations

import click

EXIT_SOME_FAILED = 1
EXIT_BAD_USAGE = 2
EXIT_INTERRUPTED = 130  # what shells expect after Ctrl-C


def show(text: str, *, err: bool = False) -> None:
    """Print text that may quote a file or a service, without characters that steer a terminal."""
    click.echo("".join(c if c.isprintable() or c == "\n" else "?" for c in text), err=err)


def fail(message: str, code: int) -> int:
    """Print an error as one line on standard error and return the exit code."""
    show(f"error: {' '.join(message.split())}", err=True)
    return code
