"""Processes that run sweeps in one folder divide the clips among them."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import signal
import threading

import pytest

from musicgen_lab import Results, Sweep
from musicgen_lab.clip import Failure
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.sharing import SharedWork
from tests.support.sines import SineBackend

CLIPS = 24
SPAWN = multiprocessing.get_context("spawn")


class SlottedBackend(SineBackend):
    """Takes up to four requests before it makes them, as an engine with four slots does."""

    def generate(self, requests, on_progress=None):
        requests = iter(requests)
        while batch := list(itertools.islice(requests, 4)):
            yield from super().generate(batch, on_progress)


def share_and_count(folder, barrier, prompt, counts):
    """Make a sweep's clips without measuring them."""
    backend = SlottedBackend()
    plan = Sweep(prompt=prompt, duration=1, seed=range(CLIPS)).plan(backend, folder)
    plan.folder.create()
    plan.folder.add_sweep(plan.design, plan.requests)
    work = SharedWork(plan.folder, plan.requests, plan.records)
    barrier.wait()
    finished = len(list(work.make(backend.generate)))
    counts.put((len(backend.made), len(work.made_here), finished))


@pytest.mark.parametrize(("prompt", "status"), [("a", "ok"), ("fail", "failed")])
def test_three_processes_make_every_clip_once_and_each_counts_its_own(tmp_path, prompt, status):
    barrier, counts = SPAWN.Barrier(3), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=share_and_count, args=(tmp_path, barrier, prompt, counts))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    made, made_here, finished = zip(*(counts.get(timeout=120) for _ in processes), strict=True)
    for process in processes:
        process.join(60)
    assert sum(made) == CLIPS
    assert made_here == made
    assert finished == (CLIPS, CLIPS, CLIPS)
    records = list(RunFolder(tmp_path).store.records())
    assert {(record.status, record.attempts) for record in records} == {(status, 1)}
    assert len(records) == CLIPS


class StuckBackend(SineBackend):
    """Makes one clip, takes three more requests, and never returns from them."""

    def __init__(self, taken):
        super().__init__()
        self.taken = taken

    def generate(self, requests, on_progress=None):
        requests = iter(requests)
        yield from super().generate([next(requests)])
        self.taken.put([next(requests).seed for _ in range(3)])
        signal.pause()


def sweep_and_get_stuck(folder, taken):
    Sweep(prompt="a", duration=1, seed=range(8)).run(StuckBackend(taken), folder, progress=False)


def test_what_a_process_had_taken_when_it_was_killed_is_made_by_another_that_waits(tmp_path):
    taken = SPAWN.Queue()
    stuck = SPAWN.Process(target=sweep_and_get_stuck, args=(tmp_path, taken))
    stuck.start()
    assert taken.get(timeout=60) == [1, 2, 3]
    backend, made_by_then = SineBackend(), []

    class Telling(SineBackend):
        def generate(self, requests, on_progress=None):
            for result in backend.generate(requests, on_progress):
                if len(backend.made) == 4:
                    made_by_then.extend(request.seed for request in backend.made)
                    stuck.kill()
                yield result

    results = Sweep(prompt="a", duration=1, seed=range(8)).run(Telling(), tmp_path, progress=False)
    stuck.join(60)
    assert made_by_then == [4, 5, 6, 7]
    assert [request.seed for request in backend.made] == [4, 5, 6, 7, 1, 2, 3]
    assert (len(results.frame), len(results.made_here)) == (8, 7)


def test_threads_of_one_process_share_the_work_too(tmp_path):
    backends = [SlottedBackend() for _ in range(3)]
    sweep = Sweep(prompt="a", duration=1, seed=range(CLIPS))
    threads = [
        threading.Thread(target=sweep.run, args=(backend, tmp_path), kwargs={"progress": False})
        for backend in backends
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sum(len(backend.made) for backend in backends) == CLIPS
    assert len(Results.open(tmp_path).frame) == CLIPS


def test_a_failure_of_before_is_tried_again_and_one_of_another_process_now_is_not(tmp_path):
    sweep = Sweep(prompt="fail", duration=1, seed=range(2))
    sweep.run(SineBackend(), tmp_path, progress=False)

    class BesideAnother(SineBackend):
        def generate(self, requests, on_progress=None):
            for request in requests:
                if not self.made:
                    another = sweep.plan(SineBackend(), tmp_path).folder
                    (last,) = [r for r in another.requests() if r.seed == 1]
                    another.store.put(Failure(last, "Elsewhere", "failed there"))
                yield from super().generate([request])

    backend = BesideAnother()
    results = sweep.run(backend, tmp_path, progress=False)
    assert [request.seed for request in backend.made] == [0]
    assert list(results.frame["attempts"]) == [2, 2]
    assert results.frame["error"][1] == "Elsewhere: failed there"


def test_a_request_that_a_backend_returns_nothing_for_is_missing_and_is_not_waited_for(tmp_path):
    class Forgetful(SineBackend):
        def generate(self, requests, on_progress=None):
            return (r for r in super().generate(requests, on_progress) if r.request.seed != 1)

    sweep = Sweep(prompt="a", duration=1, seed=range(3))
    assert len(sweep.run(Forgetful(), tmp_path, progress=False).frame) == 2
    assert json.loads((tmp_path / "sweep.json").read_text())["sweeps"][0]["requests"]
    assert Results.open(tmp_path).missing == 1
