"""An engine stepped by a thread of its own, with the embedded model: real steps."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest

from musicgen_lab.backends.submitting import Busy, Closing, PooledBackend
from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.request import GenerationRequest
from tests.support.demo_engine import open_demo
from tests.support.sines import SineBackend, sine_clip


def ask(backend, seed=0, **fields):
    fields = {"prompt": "calm acoustic guitar melody", "duration": 1.0, **fields}
    return backend.resolve(GenerationRequest(seed=seed, **fields))


@pytest.fixture(scope="module")
def demo():
    running = open_demo(slots=4)
    yield running
    running.close()


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


def test_a_cancelled_request_frees_its_place_before_it_is_made(demo):
    made = demo.describe()["made"]
    long = [demo.submit(ask(demo, seed, duration=30.0)) for seed in range(4)]
    short = demo.submit(ask(demo))
    for future in long:
        assert future.cancel()
    assert isinstance(short.result(), Clip)
    assert demo.describe() | {"device": None} == {
        "model": demo.model, "device": None, "slots": 4, "in_flight": 0, "made": made + 1,
    }  # fmt: skip


def test_a_clip_says_its_share_of_the_time_that_its_batch_took(demo):
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


class GatedEngine:
    """An engine whose every step waits for the test, and which can break as a whole."""

    slots = 1

    def __init__(self):
        self.provenance = sine_clip(GenerationRequest(prompt="x")).provenance
        self.gate, self.queue, self.broken = threading.Semaphore(0), [], False

    def add(self, request):
        self.queue.append(request)
        return len(self.queue)

    def cancel(self, ticket): ...

    def step(self):
        self.gate.acquire()
        if self.broken:
            self.broken = False
            raise RuntimeError("the device is gone")
        return [sine_clip(self.queue.pop(0))]


@pytest.fixture
def gated():
    engine = GatedEngine()
    running = EngineWorker(engine, "sines@1", waiting_max=1)
    yield engine, running
    engine.gate.release(10)
    running.close()


def test_beyond_the_limit_a_request_is_refused_until_a_place_is_free(gated):
    engine, running = gated
    first, second = (running.submit(ask(running, seed)) for seed in (1, 2))
    with pytest.raises(Busy, match="2 requests are being made or wait") as refused:
        running.submit(ask(running, 3))
    assert refused.value.retry_after_s >= 1
    engine.gate.release(2)
    wait([first, second])
    third = running.submit(ask(running, 3))
    engine.gate.release()
    assert third.result().request.seed == 3


def test_an_engine_that_breaks_fails_what_it_had_and_goes_on(gated):
    engine, running = gated
    engine.broken = True
    future = running.submit(ask(running))
    engine.gate.release()
    failure = future.result()
    assert isinstance(failure, Failure) and failure.message == "the device is gone"
    engine.queue.clear()
    after = running.submit(ask(running))
    engine.gate.release()
    assert isinstance(after.result(), Clip)


def test_closing_fails_what_is_not_finished_and_takes_nothing_more(gated):
    engine, running = gated
    future = running.submit(ask(running))
    threading.Timer(0, engine.gate.release).start()  # the step that the thread is in must end
    running.close(drain_s=0)
    assert isinstance(future.exception(), Closing) or isinstance(future.result(), Clip)
    with pytest.raises(Closing, match="shutting down"):
        running.submit(ask(running))


def test_closing_with_time_to_drain_finishes_what_runs(gated):
    engine, running = gated
    futures = [running.submit(ask(running, seed)) for seed in (1, 2)]
    engine.gate.release(2)
    running.close(drain_s=60)
    assert all(isinstance(future.result(), Clip) for future in futures)


def test_any_backend_can_be_asked_for_one_clip_at_a_time():
    pooled = PooledBackend(SineBackend(), waiting_max=10)
    request = pooled.resolve(GenerationRequest(prompt="x", duration=1))
    assert pooled.submit(request).result().request == request
    pooled.close()
    with pytest.raises(Closing):
        pooled.submit(request)
