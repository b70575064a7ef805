"""A sweep that is killed at any moment loses nothing that was finished."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import warnings

import pytest

from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.sweep import Sweep
from tests.support.sines import SineBackend

CLIPS = 150
RUN = """
import sys
from musicgen_lab import Sweep
from tests.support.sines import SineBackend
print("started", flush=True)
Sweep(prompt="a", duration=10, seed=range({clips})).run(SineBackend(), sys.argv[1], progress=False)
"""


def start_sweep(folder):
    """Start a sweep in a process of its own and wait until it is about to make clips."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(clips=CLIPS), folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


def test_sigkill_at_random_moments_keeps_every_finished_clip_and_a_rerun_makes_the_rest(tmp_path):
    chance = random.Random(5)
    kept: dict[str, bytes] = {}
    kills = 0
    while kills < 5:
        process = start_sweep(tmp_path)
        try:
            process.wait(timeout=chance.uniform(0.05, 0.7))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        finished = process.wait() == 0
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # nothing half-written is ever met, so nothing is set aside
            records = list(RunFolder(tmp_path).store.records()) if tmp_path.exists() else []
        assert all(record.status == "ok" for record in records)
        now = {r.key: (tmp_path / "clips" / f"{r.key}.json").read_bytes() for r in records}
        assert kept.items() <= now.items()  # what was there is there, untouched
        kept = now
        if finished:
            break
        kills += 1
    assert kills >= 3
    sweep, backend = Sweep(prompt="a", duration=10, seed=range(CLIPS)), SineBackend()
    results = sweep.run(backend, tmp_path, progress=False)
    assert len(backend.made) == CLIPS - len(kept)
    assert (len(results.frame), results.missing) == (CLIPS, 0)


def test_two_sweeps_on_one_folder_at_once_share_the_work_and_do_no_harm(tmp_path):
    processes = [start_sweep(tmp_path) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = RunFolder(tmp_path)
        assert len(list(run.store.records())) == CLIPS
    assert len(run.sweeps) == 1


def test_ctrl_c_stops_cleanly(tmp_path):
    process = start_sweep(tmp_path)
    while len(list(tmp_path.glob("clips/*.json"))) < 3:
        assert process.poll() is None, "it ended before it was interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = list(RunFolder(tmp_path).store.records())
    assert 3 <= len(records) <= CLIPS
    if len(records) == CLIPS:
        pytest.fail("the sweep was over before it could be interrupted")
