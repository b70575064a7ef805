"""An engine stepped by a thread of its own, with the embedded model: real steps."""

import itertools
import threading
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

from musicgen_lab.backends import worker as worker_module
from musicgen_lab.backends.submitting import Closing, EngineLost
from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import Clip
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.request import GenerationRequest
from tests.support.demo_engine import open_demo, open_engine
from tests.support.sine_engine import STEPS, SineEngine, sine_worker
from tests.support.sines import MODEL


def ask(backend, seed=0, **fields):
    fields = {"prompt": "calm acoustic guitar melody", "duration": 1.0, **fields}
    return backend.resolve(GenerationRequest(seed=seed, **fields))


@pytest.fixture(scope="module")
def demo():
    worker = open_demo(max_clips=4)
    yield worker
    worker.close()


def test_requests_from_many_threads_get_the_clip_they_would_have_got_alone(demo):
    requests = [ask(demo, seed, temperature=0.5 + 0.1 * seed) for seed in range(6)]
    alone = [demo.submit(request).result().samples for request in requests]
    futures = {}

    def submit(index):
        futures[index] = demo.submit(requests[index])

    threads = [threading.Thread(target=submit, args=[i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, future in futures.items():
        clip = future.result()
        assert clip.request == requests[index]
        np.testing.assert_array_equal(clip.samples, alone[index])


def test_equal_requests_each_get_their_own_answer(demo):
    request = ask(demo)
    futures = [demo.submit(request) for _ in range(3)]
    first, *others = [future.result().samples for future in futures]
    assert all(np.array_equal(first, other) for other in others)


def test_a_cancelled_request_frees_its_slot_before_it_is_made(demo):
    made = demo.describe()["made"]
    long = [demo.submit(ask(demo, seed, duration=30.0)) for seed in range(4)]
    short = demo.submit(ask(demo))
    for future in long:
        assert future.cancel()
    assert isinstance(short.result(), Clip)
    assert demo.describe() | {"device": None} == {
        "model": demo.model, "device": None, "max_clips": 4, "in_flight": 0, "made": made + 1,
    }  # fmt: skip


def test_a_clip_reports_its_share_of_the_batchs_time(demo):
    clips = [f.result() for f in [demo.submit(ask(demo, seed)) for seed in range(4)]]
    assert all(clip.elapsed_s > 0 for clip in clips)


def test_generate_yields_every_request_and_cancels_when_its_caller_stops(demo):
    requests = [ask(demo, seed) for seed in range(5)]
    assert {r.request.seed for r in demo.generate(requests)} == set(range(5))
    stopped = demo.generate([ask(demo, 0), *(ask(demo, s, duration=30.0) for s in range(3))])
    assert isinstance(next(stopped), Clip)
    stopped.close()
    assert demo.describe()["in_flight"] == 0


def test_another_model_is_refused_and_its_own_name_is_enough(demo):
    assert ask(demo, model="demo").model == demo.model
    with pytest.raises(ModelUnavailable, match="serves demo@"):
        ask(demo, model="facebook/musicgen-large")


def test_an_estimate_counts_the_time_of_prefill_but_not_its_steps(monkeypatch):
    clocks = defaultdict(itertools.count)  # of each worker's thread: every step takes a second
    clock = SimpleNamespace(perf_counter=lambda: next(clocks[threading.get_ident()]))
    monkeypatch.setattr(worker_module, "time", clock)
    engine = SineEngine()
    steps = itertools.chain([list, list, list], itertools.repeat(engine.step))
    engine.step = lambda: next(steps)()
    worker = sine_worker(engine)

    assert isinstance(worker.submit(ask(worker)).result(), Clip)

    assert worker.estimate_s([ask(worker)]) == STEPS * (1 + 3)
    worker.close()


class GatedEngine(SineEngine):
    """An engine whose every step waits for the test, and which can fail as a whole."""

    def __init__(self):
        super().__init__()
        self.gate, self.error, self.works = threading.Semaphore(0), None, True

    def device_works(self):
        return self.works

    def step(self):
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        return super().step()


@pytest.fixture
def gated():
    engine = GatedEngine()
    worker = sine_worker(engine)
    yield engine, worker
    engine.gate.release(10)
    worker.close()


def test_an_engine_that_fails_as_a_whole_fails_what_it_had_and_goes_on(gated):
    engine, worker = gated
    engine.error = RuntimeError("no such kernel")
    future = worker.submit(ask(worker))
    engine.gate.release()
    failure = future.result()
    assert (failure.error_type, failure.message) == ("RuntimeError", "no such kernel")
    assert "Traceback" in failure.traceback
    engine.error = None
    after = worker.submit(ask(worker))
    engine.gate.release()
    assert isinstance(after.result(), Clip) and not worker.broken


def test_a_clip_that_fails_alone_changes_nothing_for_the_others(gated):
    engine, worker = gated
    futures = [worker.submit(ask(worker, prompt=prompt)) for prompt in ("fail", "guitar")]
    engine.gate.release(2)
    failure, clip = (future.result() for future in futures)
    assert failure.error_type == "MemoryError" and isinstance(clip, Clip) and not worker.broken


@pytest.mark.parametrize("alone", [True, False])
def test_a_lost_device_fails_everything_as_retryable_and_accepts_no_more_requests(alone):
    engine, called = GatedEngine(), threading.Event()
    engine.max_clips = 2
    worker = EngineWorker(engine, MODEL, on_broken=called.set)
    prompts = ["finished", "fail", "waits"]
    futures = [worker.submit(ask(worker, prompt=prompt)) for prompt in prompts]
    engine.works = False
    if not alone:
        engine.error = RuntimeError("an illegal memory access")
    engine.gate.release()
    results = [future.result() for future in futures]
    assert isinstance(results[0], Clip) == alone  # what was finished by then is not lost
    for failure in results[1:]:
        assert failure.error_type == "EngineLost" and "stopped working" in failure.message
        assert "Traceback" in failure.traceback
    assert called.wait(60) and worker.broken
    for refused in (worker.check, worker.describe, lambda: worker.submit(ask(worker))):
        with pytest.raises(EngineLost, match="must be restarted"):
            refused()
    worker.close()


def test_progress_is_reported_in_steps_until_a_request_is_finished():
    engine, seen = open_engine(max_clips=1), []
    worker = EngineWorker(engine, MODEL)
    request = ask(worker)
    with worker._changed:  # the worker's thread waits until the callback is there
        future = worker.submit(request)
        engine.on_progress = lambda _: seen.append(worker.progress(future))
    assert isinstance(future.result(), Clip)
    steps = engine.count_steps(request)
    assert seen == [(done, steps) for done in range(1, steps + 1)]
    assert worker.progress(future) is None
    worker.close()


def test_closing_fails_unfinished_requests_and_accepts_no_more(gated):
    engine, worker = gated
    future = worker.submit(ask(worker))
    # Only then may the step that the thread is in end, and with it the thread.
    future.add_done_callback(lambda _: engine.gate.release())
    worker.close(drain_s=0)
    assert isinstance(future.exception(), Closing)
    with pytest.raises(Closing, match="shutting down"):
        worker.submit(ask(worker))


def test_closing_with_time_to_drain_finishes_what_runs(gated):
    engine, worker = gated
    futures = [worker.submit(ask(worker, seed)) for seed in (1, 2)]
    engine.gate.release(2)
    worker.close(drain_s=60)
    assert all(isinstance(future.result(), Clip) for future in futures)
