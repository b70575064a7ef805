"""The thread of a remote backend ends with the backend."""

from __future__ import annotations

import gc
import threading

import pytest

from musicgen_lab.backends.http import HttpBackend
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
