"""Measures many sound files, in worker processes if there are enough of them.

A worker is a fresh interpreter that runs this file, given paths and giving numbers: it neither
copies this process, which may hold a model and its threads, nor runs the caller's script again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from musicgen_lab.analysis.distances import signature
from musicgen_lab.analysis.features import measure
from musicgen_lab.analysis.librosa_modules import load_librosa
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.clip import decode_audio
from musicgen_lab.runs.interpreter import (
    NEUTRAL_FOLDER,
    interpreter_command,
    interpreter_environment,
)

MEASURES: Mapping[str, Callable[[Array, int], Any]] = {
    "features": measure,
    "signature": lambda samples, sample_rate: signature(samples, sample_rate).tolist(),
}
"""What can be measured: samples (channels, n) and a rate in, something JSON can hold out."""

SOUNDS_PER_WORKER = 20  # fewer are measured sooner than another interpreter is started


def measure_files(what: str, paths: Sequence[Path], *, workers: int | None = None) -> list[Any]:
    """Measure sound files.

    Parameters
    ----------
    what : str
        One of `MEASURES`.
    paths : sequence of Path
    workers : int, optional
        Processes, one being this one; by default as many as there are cores to run on, and as are
        worth it.

    Returns
    -------
    list
        What was measured of each file, in the order of the paths.
    """
    if workers is None:
        workers = min(_cores(), len(paths) // SOUNDS_PER_WORKER)
    shares = [paths[start::workers] for start in range(workers)] if workers > 1 else [paths]
    if len(shares) > 1:
        load_librosa()  # compiled here once, not waited for by every worker
    # As many threads here as a worker has: with others, sums differ in their last bits.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(max(1, len(shares) - 1)) as elsewhere,
    ):
        futures = [elsewhere.submit(_in_a_worker, what, share) for share in shares[1:]]
        measured = [_in_this_process(what, shares[0]), *(answer.result() for answer in futures)]
    values: list[Any] = [None] * len(paths)
    for start, share in enumerate(measured):
        values[start :: len(shares)] = share
    return values


def _cores() -> int:
    """Return the number of cores that this process may use, where the system reports it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_this_process(what: str, paths: Sequence[Path]) -> list[Any]:
    return [MEASURES[what](*decode_audio(path.read_bytes())) for path in paths]


def _in_a_worker(what: str, paths: Sequence[Path]) -> list[Any]:
    """Measure in a worker; what it does not finish, e.g. for lack of memory, is measured here.

    It writes no errors: this process meets the same ones, and gets the same Ctrl-C.
    """
    environment = interpreter_environment() | {"OMP_NUM_THREADS": "1"}
    task = json.dumps({"what": what, "paths": [str(path.absolute()) for path in paths]})
    worker = subprocess.run(
        interpreter_command("-m", "musicgen_lab.runs.measuring"),
        input=task.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=NEUTRAL_FOLDER,
        check=False,
    )
    if worker.returncode != 0:
        return _in_this_process(what, paths)
    measured: list[Any] = json.loads(worker.stdout)
    return measured


def _worker() -> None:
    task = json.load(sys.stdin)
    json.dump(_in_this_process(task["what"], [Path(path) for path in task["paths"]]), sys.stdout)


if __name__ == "__main__":
    _worker()
