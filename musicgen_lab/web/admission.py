"""`Admission`: the limit on requests that are in a backend at once."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from musicgen_lab.backends.jobs import Jobs, StartedJob
from musicgen_lab.backends.submitting import Busy, Result, Submits, clip_of
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import OnChunk


class Admission:
    """Admits as many requests as a backend makes at once, and `waiting_max` more.

    Requests whose clients wait and jobs are counted alike.

    Parameters
    ----------
    backend : Submits
    jobs : Jobs
    waiting_max : int
        Requests that may wait beyond those being made.

    Attributes
    ----------
    audio_s : float
        Seconds of audio made so far.
    """

    def __init__(self, backend: Submits, jobs: Jobs, waiting_max: int) -> None:
        self._backend, self._jobs, self._waiting_max = backend, jobs, waiting_max
        self._lock, self.audio_s = threading.Lock(), 0.0
        self._in_flight, self._ended, self._ended_s = 0, 0, 0.0

    @property
    def making(self) -> int:
        """Requests in progress, estimated from the number of slots."""
        return min(self._in_flight, self._backend.max_clips)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._in_flight - self.making

    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Submit a resolved request to the backend, as `Submits.submit`.

        Raises
        ------
        Busy
            When too many are in flight.
        BackendUnavailable
            As raised by the backend.
        """
        with self._admitted():
            future = self._backend.submit(request, on_chunk)
        self._watch(future)
        return future

    def start_job(self, request: GenerationRequest, warnings: Sequence[str]) -> StartedJob:
        """Start a job for a resolved request; it counts until it has ended.

        Raises
        ------
        Busy
            When too many are in flight.
        BackendUnavailable
            As `Jobs.start`.
        """
        with self._admitted():
            job = self._jobs.start(request, warnings)
        self._watch(job.result)
        return job

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Count a request, unless the backend rejects it."""
        with self._lock:
            if self._in_flight >= self._backend.max_clips + self._waiting_max:
                raise Busy(
                    f"{self._in_flight} requests are being made or wait, which is the limit; "
                    f"try again in {self._next_end_s()} s",
                    retry_after_s=self._next_end_s(),
                )
            self._in_flight += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._in_flight -= 1
            raise

    def _watch(self, future: Future[Result]) -> None:
        started_s = time.monotonic()
        future.add_done_callback(lambda done: self._end(done, time.monotonic() - started_s))

    def _end(self, future: Future[Result], spent_s: float) -> None:
        clip = clip_of(future)
        with self._lock:
            if clip is not None:
                self.audio_s += clip.duration_s
            self._in_flight -= 1
            self._ended, self._ended_s = self._ended + 1, self._ended_s + spent_s

    def _next_end_s(self) -> int:
        """Estimate the whole seconds until the next request ends, by Little's law."""
        mean_s = self._ended_s / self._ended if self._ended else 0.0
        return max(1, math.ceil(mean_s / self._in_flight))
