"""Refuse to compute in a process that was forked from one with an engine, where it would hang.

The threads of OpenMP and of CUDA are not copied by a fork, but the copy of the library waits for
them.
"""

from __future__ import annotations

import os

from musicgen_lab.errors import BackendUnavailable

_used = False  # whether an engine was used in this process, or in the one it was forked from
_forked = False  # whether this process was forked after that


def _after_fork() -> None:
    global _forked
    _forked = _used


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)


def check_not_forked() -> None:
    """Call this before an engine computes.

    Raises
    ------
    BackendUnavailable
        When the process was forked after an engine was used.
    """
    global _used
    if _forked:
        raise BackendUnavailable(
            "this process was forked after a model had been used, and would hang: start processes "
            "with multiprocessing.get_context('spawn'), or connect to the model in them alone"
        )
    _used = True
