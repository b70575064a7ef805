"""`Admission`: how many requests the web app lets into a backend at once."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future

from musicgen_lab.backends.submitting import Busy, Result, Submits
from musicgen_lab.clip import Clip
from musicgen_lab.request import GenerationRequest


class Admission:
    """Lets in as many requests as a backend makes at once, and `waiting_max` more.

    Parameters
    ----------
    backend : Submits
    waiting_max : int
        Requests that may wait beyond those being made.

    Attributes
    ----------
    audio_s : float
        Seconds of audio made so far.
    """

    def __init__(self, backend: Submits, waiting_max: int) -> None:
        self._backend, self._waiting_max = backend, waiting_max
        self._lock, self.audio_s = threading.Lock(), 0.0
        self._in_flight, self._ended, self._ended_s = 0, 0, 0.0

    @property
    def making(self) -> int:
        """Requests being made, as far as the number of slots tells."""
        return min(self._in_flight, self._backend.slots)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._in_flight - self.making

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Submit a resolved request to the backend.

        Raises
        ------
        Busy
            When too many are in flight.
        BackendUnavailable
            The backend's own.
        """
        with self._lock:
            if self._in_flight >= self._backend.slots + self._waiting_max:
                raise Busy(
                    f"{self._in_flight} requests are being made or wait, which is the limit; "
                    f"try again in {self._next_end_s()} s",
                    retry_after_s=self._next_end_s(),
                )
            self._in_flight += 1
        started_s = time.monotonic()
        try:
            future = self._backend.submit(request)
        except BaseException:
            self._leave(0.0)
            raise
        future.add_done_callback(lambda done: self._end(done, time.monotonic() - started_s))
        return future

    def _end(self, future: Future[Result], spent_s: float) -> None:
        self._leave(spent_s)
        if future.cancelled() or future.exception() is not None:
            return
        result = future.result()
        if isinstance(result, Clip):
            with self._lock:
                self.audio_s += result.duration_s

    def _leave(self, spent_s: float) -> None:
        with self._lock:
            self._in_flight -= 1
            self._ended, self._ended_s = self._ended + 1, self._ended_s + spent_s

    def _next_end_s(self) -> int:
        """Return the whole seconds until the next request ends, by Little's law."""
        mean_s = self._ended_s / self._ended if self._ended else 0.0
        return max(1, math.ceil(mean_s / self._in_flight))
