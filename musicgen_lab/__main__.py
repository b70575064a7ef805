"""The entry point of the `musicgen-lab` command, which Ctrl-C ends in one line from the start."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Import and run the command.

    Libraries that are interrupted while they are imported print tracebacks, or turn the interrupt
    into an error of their own. Nothing is open yet, so until the command runs, Ctrl-C ends the
    process at once.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where a shell lets a background job ignore it
        signal.signal(signal.SIGINT, _stop)
    from musicgen_lab.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _stop(signum: int, frame: FrameType | None) -> None:
    sys.stderr.write("\nerror: stopped\n")  # after the terminal's ^C
    sys.stderr.flush()
    os._exit(128 + signum)


if __name__ == "__main__":
    main()
