"""The thread of a remote backend ends with the backend."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from musicgen_lab.backends.event_loop import EventLoop
from musicgen_lab.backends.http import HttpBackend
from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest
from tests.support.serving import serving
from tests.support.sine_engine import sine_worker

NOWHERE = "http://127.0.0.1:9"  # nothing is sent there


def connect_with_thread(address):
    """Return a backend and the thread that it has started."""
    before = set(threading.enumerate())
    backend = HttpBackend(address)
    (thread,) = set(threading.enumerate()) - before
    return backend, thread


def test_a_closed_backend_has_no_thread_and_says_to_connect_again():
    backend, thread = connect_with_thread(NOWHERE)
    backend.close()
    assert not thread.is_alive()
    with pytest.raises(BackendUnavailable, match="was closed; connect to it again"):
        backend.resolve(GenerationRequest(prompt="calm guitar"))
    backend.close()


def test_a_closed_backend_on_modal_says_to_connect_again_too():
    backend = ModalBackend()
    backend.close()
    with pytest.raises(BackendUnavailable, match=r"^this backend was closed; connect to it again$"):
        backend.resolve(GenerationRequest(prompt="calm guitar"))


def test_closing_does_not_wait_longer_than_it_may():
    loop, working, gate = EventLoop("test"), threading.Event(), threading.Event()

    def work():
        working.set()
        gate.wait(30)

    loop.start(asyncio.to_thread(work))  # which cannot be cancelled
    assert working.wait(60)
    loop.close(0.1)
    assert loop._thread.is_alive()
    gate.set()
    loop._thread.join(60)


def test_the_thread_of_a_backend_that_nobody_has_any_more_ends():
    backend, thread = connect_with_thread(NOWHERE)
    del backend
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_clips_that_are_left_half_way_can_be_dropped_after_their_backend_was_closed():
    requests = [GenerationRequest(prompt="calm", duration=1, seed=seed) for seed in range(3)]
    with serving(sine_worker()) as address:
        backend, thread = connect_with_thread(address)
        clips = backend.generate(map(backend.resolve, requests))
        next(clips)
        backend.close()
        clips.close()
    assert not thread.is_alive()


@pytest.mark.parametrize("where", ["a thread that starts a request", "the loop's own thread"])
def test_a_stream_that_the_garbage_collector_ends_anywhere_holds_up_nothing(where, monkeypatch):
    loop, ended, answers = EventLoop("test"), [], []

    def stream():
        try:
            yield
        finally:
            loop.settle(1)
            ended.append(where)

    async def answer():
        if where == "the loop's own thread":
            gc.collect()
        return "answer"

    def start_while_collecting(coroutine, running):
        monkeypatch.undo()
        gc.collect()
        return asyncio.run_coroutine_threadsafe(coroutine, running)

    gc.disable()
    try:
        cycle = [stream()]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        if where == "a thread that starts a request":
            monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", start_while_collecting)
        caller = threading.Thread(target=lambda: answers.append(loop.wait(answer())), daemon=True)
        caller.start()
        caller.join(60)
    finally:
        gc.enable()
    assert answers == ["answer"] and ended == [where]
    loop.close(1)
