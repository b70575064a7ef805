"""Backends that take one request at a time: `submit` returns a future that can be cancelled.

A web server and a Modal client work like this: requests come whenever they come, and their callers
may leave.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol, runtime_checkable

from musicgen_lab.backends import Backend
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable, ModelUnavailable
from musicgen_lab.request import GenerationRequest

Result = Clip | Failure


class Busy(BackendUnavailable):
    """Too many requests are waiting already.

    Parameters
    ----------
    message : str
        One sentence.
    retry_after_s : int
        In how many whole seconds a place is likely to be free.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Closing(BackendUnavailable):
    """The backend is shutting down; what it had not finished is not made."""


@runtime_checkable
class Submits(Protocol):
    """A backend that takes one request at a time, from any thread, and answers with a future."""

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model named and its revision fixed."""

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Start on a resolved request; cancel the future to give its place away."""

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, wait so long for what runs, then fail the rest with `Closing`."""


class PooledBackend:
    """Any backend, asked for one clip at a time from a few threads.

    Parameters
    ----------
    backend : Backend
    threads : int
        Requests made at once.
    waiting_max : int or None
        Requests that may wait beyond those; None for any number.
    """

    def __init__(
        self, backend: Backend, *, threads: int = 1, waiting_max: int | None = None
    ) -> None:
        self._backend, self._threads, self._waiting_max = backend, threads, waiting_max
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="backend")
        self._futures: set[Future[Result]] = set()
        self._lock = threading.Lock()
        self._closing = False

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return what the backend makes of it."""
        return self._backend.resolve(request)

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Start on a request when a thread is free. One that has started cannot be cancelled.

        Raises
        ------
        Busy
            When `waiting_max` requests wait already.
        Closing
            After `close`.
        """
        with self._lock:
            if self._closing:
                raise Closing("the service is shutting down; send the request again in a moment")
            if self._waiting_max is not None and (
                len(self._futures) >= self._threads + self._waiting_max
            ):
                raise Busy(
                    f"{len(self._futures)} requests are being made or wait, which is the limit; "
                    "try again in 1 s",
                    retry_after_s=1,
                )
            future = self._pool.submit(self._make, request)
            self._futures.add(future)
        future.add_done_callback(self._forget)
        return future

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, wait up to `drain_s` seconds, and cancel what has not started."""
        with self._lock:
            self._closing = True
            running = set(self._futures)
        wait(running, timeout=drain_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, request: GenerationRequest) -> Result:
        return next(iter(self._backend.generate([request])))

    def _forget(self, future: Future[Result]) -> None:
        with self._lock:
            self._futures.discard(future)


def submitting(backend: Backend | Submits, *, waiting_max: int | None = None) -> Submits:
    """Return the backend itself where it takes single requests, else one that does it for it."""
    if isinstance(backend, Submits):
        return backend
    return PooledBackend(backend, waiting_max=waiting_max)


def generate_by_submitting(
    backend: Submits, requests: Iterable[GenerationRequest], *, at_once: int
) -> Iterator[Result]:
    """Yield the results of submitted requests in the order of finishing, `at_once` in flight.

    When the caller stops, what is in flight is cancelled.
    """
    source, more = iter(requests), True
    finished: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
    in_flight: set[Future[Result]] = set()
    try:
        while more or in_flight:
            while more and len(in_flight) < at_once:
                request = next(source, None)
                more = request is not None
                if request is not None:
                    future = backend.submit(request)
                    in_flight.add(future)
                    future.add_done_callback(finished.put)
            if in_flight:
                done = finished.get()
                in_flight.discard(done)
                yield done.result()
    finally:
        for future in in_flight:
            future.cancel()


def resolve_served(request: GenerationRequest, served: Sequence[str]) -> GenerationRequest:
    """Return the request with the "name@revision" it stands for among those served.

    Parameters
    ----------
    request : GenerationRequest
        Its model may be missing (the first one served), a name, or a name with its revision.
    served : sequence of str
        "name@revision" each; the first is the default.

    Raises
    ------
    ModelUnavailable
        When it is none of these.
    """
    for model in served:
        if request.model in (None, model, model.partition("@")[0]):
            return request if request.model == model else request.with_model(model)
    raise ModelUnavailable(
        f"this service serves {', '.join(served)}, not {request.model!r}; "
        "leave model out for the first"
    )
