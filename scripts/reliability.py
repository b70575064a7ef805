"""Harm runs in every way that docs/reliability.md counts, and print what was lost or believed.

    uv run python scripts/reliability.py [--kills 100] [--flips 300] [--processes 3] [--clips 60]

It needs no model: the clips are sines. Everything is done in a temporary folder. With 0 a
kind of harm is left out; several runs with other values of `--seed` add up to one of their total.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from musicgen_lab import Clip, Failure, GenerationRequest, Results, Sweep
from musicgen_lab.clip import Provenance
from musicgen_lab.errors import MusicGenLabError
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.sharing import SharedWork

MADE_BY = Provenance(engine="sines 1", device="cpu", dtype="float32", lab_version="test")
SAMPLE_RATE = 8_000
LONGEST_SHARE = 0.3  # of the time that a whole sweep takes, until it is killed


class Sines:
    """A backend that makes a sine of every request."""

    name = "sines"

    def __init__(self) -> None:
        self.made = 0

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Name the model."""
        return request if request.model else request.with_model("sines@1")

    def generate(self, requests: Any, on_progress: Any = None) -> Any:
        """Make a sine of each request."""
        for request in requests:
            t = np.arange(round(request.duration * SAMPLE_RATE)) / SAMPLE_RATE
            samples = 0.1 * np.sin(2 * np.pi * (200 + request.seed) * t)
            self.made += 1
            yield Clip(request, samples[None].astype(np.float32), SAMPLE_RATE, MADE_BY, 0.01)

    def estimate_s(self, requests: Any) -> float:
        """Say that a clip takes no time."""
        return 0.0


def run(folder: Path, clips: int, duration: float = 1.0) -> int:
    """Run a sweep of so many clips, without measuring them, and return how many it made."""
    sweep, backend = Sweep(prompt="a", duration=duration, seed=range(clips)), Sines()
    plan = sweep.plan(backend, folder)
    run_folder = RunFolder(folder)
    run_folder.create()
    run_folder.add_sweep(plan.design, plan.requests)
    missing = [request for request in plan.requests if request.key() not in plan.records]
    for _ in SharedWork(run_folder, missing, plan.records).make(backend.generate):
        pass
    return backend.made


def kill(folder: Path, kills: int, chance: random.Random) -> dict[str, int]:
    """End sweeps by SIGKILL at random moments; a clip that was finished must stay as it was."""
    counts = {
        "SIGKILLs": 0,
        "sweeps that ended first": 0,
        "clips finished before": 0,
        "clips lost or changed": 0,
    }
    fork = multiprocessing.get_context("fork")  # so that no kill falls into the imports
    kept: dict[str, bytes] = {}
    number, clips = 0, 200
    run(folder / "imports", 1, 10)
    begun_s = time.monotonic()
    run(folder / "whole", clips, 10)
    longest_s = LONGEST_SHARE * (time.monotonic() - begun_s)
    while counts["SIGKILLs"] < kills:
        run_folder = folder / str(number)
        process = fork.Process(target=run, args=(run_folder, clips, 10))
        process.start()
        process.join(chance.uniform(0.0, longest_s))
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit("a sweep failed")
        ended = process.exitcode == 0
        counts["sweeps that ended first" if ended else "SIGKILLs"] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing that is half written is ever met
            records = list(RunFolder(run_folder).store.records())
        now = {r.key: (run_folder / "clips" / f"{r.key}.json").read_bytes() for r in records}
        counts["clips finished before"] += len(now.keys() - kept.keys())
        counts["clips lost or changed"] += sum(now.get(key) != kept[key] for key in kept)
        kept = now
        if ended:
            number, kept = number + 1, {}
    left = clips - len(kept)
    if run(folder / str(number), clips, 10) != left:
        raise SystemExit(f"a rerun did not make the {left} clips that were left")
    return counts


def flip(path: Path, content: bytes, chance: random.Random) -> None:
    """Write a file with one bit flipped."""
    damaged = bytearray(content)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    path.write_bytes(damaged)


def flips(
    folder: Path, choose: Callable[[random.Random], Path], count: int, chance: random.Random
) -> dict[str, int]:
    """Flip single bits of files and read the run: what is wrong must be said or made up for."""
    counts = {
        "flips": 0,
        "read as before": 0,
        "refused with a warning": 0,
        "believed": 0,
        "errors": 0,
    }
    before = Results.open(folder)
    sweeps, frame = before.sweeps, before.frame.set_index("key").sort_index()
    parquet = (folder / "results.parquet").read_bytes()
    for _ in range(count):
        path = choose(chance)
        content = path.read_bytes()
        flip(path, content, chance)
        counts["flips"] += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                results = Results.open(folder)
                after = results.frame.set_index("key").sort_index()
            except MusicGenLabError:
                counts["refused with a warning"] += 1
                path.write_bytes(content)
                continue
            except Exception as error:
                print(f"  {type(error).__name__}: {error}", file=sys.stderr)
                counts["errors"] += 1
                path.write_bytes(content)
                continue
        if any("MusicGenLab" in warning.category.__name__ for warning in caught):
            counts["refused with a warning"] += 1
        elif results.sweeps == sweeps and _same(after, frame):
            counts["read as before"] += 1
        else:
            counts["believed"] += 1
        path.write_bytes(content)
        (folder / "results.parquet").write_bytes(parquet)
    return counts


def _same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(a, b)
    except AssertionError:
        return False
    return True


def _share(folder: Path, clips: int, barrier: Any, made: Any) -> None:
    barrier.wait()
    made.put(run(folder, clips))


def share(folder: Path, processes: int, clips: int, rounds: int) -> dict[str, int]:
    """Run the same sweep in several processes at once: every clip is to be made once."""
    spawn = multiprocessing.get_context("spawn")
    counts = {"rounds": rounds, "clips requested": 0, "clips made": 0, "clips there": 0}
    for number in range(rounds):
        barrier, made, run_folder = spawn.Barrier(processes), spawn.Queue(), folder / str(number)
        workers = [
            spawn.Process(target=_share, args=(run_folder, clips, barrier, made))
            for _ in range(processes)
        ]
        for worker in workers:
            worker.start()
        counts["clips made"] += sum(made.get(timeout=300) for _ in workers)
        for worker in workers:
            worker.join()
        counts["clips requested"] += clips
        counts["clips there"] += len(list(RunFolder(run_folder).store.records()))
    return counts


def report(title: str, counts: dict[str, int]) -> None:
    """Print one line."""
    print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)


def main() -> None:
    """Harm runs and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="musicgen-lab-reliability-"))
    try:
        whole = folder / "whole"
        if given.flips:
            flip_files(whole, given.flips, chance)
        if given.rounds:
            report(
                f"{given.processes} processes in one folder",
                share(folder / "shared", given.processes, given.clips, given.rounds),
            )
        if given.kills:
            report("killed sweeps", kill(folder / "killed", given.kills, chance))
    finally:
        shutil.rmtree(folder)


def flip_files(whole: Path, count: int, chance: random.Random) -> None:
    """Flip bits in every kind of file of a run, and print what became of it."""
    run(whole, 2)
    RunFolder(whole).store.put(Failure(_failed(whole), "OutOfMemoryError", "no room"))
    records = sorted((whole / "clips").glob("*.json"))
    sounds = sorted((whole / "clips").glob("*.wav"))
    for title, choose in (
        ("results.parquet", lambda chance: whole / "results.parquet"),
        ("sweep.json", lambda chance: whole / "sweep.json"),
        ("records", lambda chance: chance.choice(records)),
        ("sounds", lambda chance: chance.choice(sounds)),
    ):
        report(f"bits of {title}", flips(whole, choose, count, chance))


def _failed(folder: Path) -> GenerationRequest:
    """Return a request of the folder's model that is not in its sweep."""
    (first, *_) = RunFolder(folder).requests()
    return GenerationRequest(**{**first.model_dump(), "prompt": "fail"})


if __name__ == "__main__":
    main()
