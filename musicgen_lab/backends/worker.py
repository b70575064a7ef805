"""`EngineWorker`: an engine that a thread of its own keeps stepping, for callers that come and go.

A web server or a Modal container submits requests whenever they arrive; each gets a future, and
all of them share the engine's batch. Cancelling a future frees its place within one step.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from musicgen_lab.backends import OnProgress
from musicgen_lab.backends.submitting import (
    Busy,
    Closing,
    Result,
    generate_by_submitting,
    resolve_served,
)
from musicgen_lab.clip import Failure, Provenance
from musicgen_lab.request import GenerationRequest


class SteppedEngine(Protocol):
    """What is needed of an engine: `musicgen_lab.engine.engine.Engine` is one."""

    slots: int
    provenance: Provenance

    def add(self, request: GenerationRequest) -> int:
        """Queue a request and return its ticket; from any thread."""

    def cancel(self, ticket: int) -> None:
        """Drop a request; nothing is returned for it."""

    def step(self) -> list[Result]:
        """Take one step and return what is finished."""


@dataclass
class _Place:
    """A request on its way through the engine."""

    future: Future[Result]
    ticket: int


class EngineWorker:
    """One engine and the thread that steps it. A `Backend` that serves one model.

    Parameters
    ----------
    engine : SteppedEngine
        Nobody else may step it.
    model : str
        Its model as "name@revision".
    waiting_max : int or None
        Requests that may wait beyond those in the batch; None for any number.

    Attributes
    ----------
    slots : int
        Clips made at once.
    """

    def __init__(
        self, engine: SteppedEngine, model: str, *, waiting_max: int | None = None
    ) -> None:
        self.slots, self.model = engine.slots, model
        self._engine, self._waiting_max = engine, waiting_max
        self._places: dict[int, _Place] = {}  # by the identity of a request of the engine's own
        self._requests: dict[int, GenerationRequest] = {}  # keeps those identities from reuse
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._busy_s, self._made = 0.0, 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The model and the device."""
        return f"{self.model.partition('@')[0]} on {self._engine.provenance.device}"

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with this engine's model and revision.

        Raises
        ------
        ModelUnavailable
            When another model, or another revision of this one, is asked for.
        """
        return resolve_served(request, [self.model])

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the seconds that making these would take, from the clips made so far."""
        if not requests:
            return 0.0
        return self._busy_s / self._made * len(requests) if self._made else None

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Start on a request as soon as a slot is free.

        Parameters
        ----------
        request : GenerationRequest
            Resolved.

        Returns
        -------
        Future of Clip or Failure
            Cancelling it drops the request at the engine's next step, even half way through.

        Raises
        ------
        Busy
            When `waiting_max` requests wait already.
        Closing
            When the engine is being closed.
        """
        own = request.model_copy()
        future: Future[Result] = Future()
        with self._changed:
            if self._closing:
                raise Closing("the service is shutting down; send the request again in a moment")
            if self._waiting_max is not None and (
                len(self._places) >= self.slots + self._waiting_max
            ):
                raise Busy(
                    f"{len(self._places)} requests are being made or wait, which is the limit; "
                    f"try again in {self._retry_after_s()} s",
                    retry_after_s=self._retry_after_s(),
                )
            self._requests[id(own)] = own
            self._places[id(own)] = _Place(future, self._engine.add(own))
            self._changed.notify_all()
        future.add_done_callback(lambda done: self._leave(id(own)) if done.cancelled() else None)
        return future

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Result]:
        """Make a clip or a failure of every request, in the order of finishing."""
        return generate_by_submitting(self, requests, at_once=self.slots)

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, wait up to `drain_s` seconds for what runs, and end the thread.

        What is not finished by then fails with `Closing`.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._places, timeout=drain_s)
            self._stopped = True
            unfinished = list(self._places.values())
            self._places.clear()
            self._requests.clear()
            self._changed.notify_all()
        for place in unfinished:
            self._engine.cancel(place.ticket)
            if place.future.set_running_or_notify_cancel():
                place.future.set_exception(Closing("the service shut down before this was made"))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def describe(self) -> dict[str, Any]:
        """Return what it is doing: `model`, `device`, `slots`, `in_flight`, `made`."""
        with self._changed:
            return {
                "model": self.model,
                "device": self._engine.provenance.device,
                "slots": self.slots,
                "in_flight": len(self._places),
                "made": self._made,
            }

    def _retry_after_s(self) -> int:
        return max(1, math.ceil(self._busy_s / self._made)) if self._made else 1

    def _leave(self, identity: int) -> None:
        with self._changed:
            place = self._places.pop(identity, None)
            self._requests.pop(identity, None)
            self._changed.notify_all()
        if place is not None:
            self._engine.cancel(place.ticket)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._places or self._stopped)
                if self._stopped:
                    return
            started_s = time.perf_counter()
            try:
                results = self._engine.step()
            except Exception as error:  # of the engine as a whole: nobody may wait for ever
                self._fail_all(error)
                continue
            elapsed_s = time.perf_counter() - started_s
            with self._changed:
                self._busy_s += elapsed_s
                self._made += len(results)
            for result in results:
                self._hand_over(result)

    def _hand_over(self, result: Result) -> None:
        with self._changed:
            place = self._places.pop(id(result.request), None)
            self._requests.pop(id(result.request), None)
            self._changed.notify_all()
        if place is None or not place.future.set_running_or_notify_cancel():
            return  # its caller has left
        place.future.set_result(result)

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            requests, self._requests = self._requests, {}
            places, self._places = self._places, {}
            self._changed.notify_all()
        for identity, place in places.items():
            self._engine.cancel(place.ticket)
            if place.future.set_running_or_notify_cancel():
                failure = Failure.from_error(requests[identity], error)
                place.future.set_result(failure)
