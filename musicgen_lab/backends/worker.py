"""`EngineWorker`: an engine and the thread that steps it, for requests that arrive at any time.

A web server or a Modal container submits requests as they arrive; each gets a future, and all of
them share the engine's batch. Cancelling a future frees its slot within one step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from musicgen_lab.backends import OnProgress
from musicgen_lab.backends.submitting import (
    Closing,
    EngineLost,
    Result,
    SubmittedStreams,
    generate_by_submitting,
    resolve_served,
)
from musicgen_lab.clip import Clip, Failure, Provenance
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import OnChunk


class SteppedEngine(Protocol):
    """The interface of an engine that `EngineWorker` needs; `Engine` has it."""

    max_clips: int
    codebook_size: int
    provenance: Provenance

    @property
    def steps_done(self) -> int:
        """Total steps of all requests so far, without those whose tokens were given."""

    def add_request(self, request: GenerationRequest, on_chunk: OnChunk | None = None, /) -> int:
        """Queue a request and return its id; from any thread."""

    def abort(self, request_id: int, /) -> None:
        """Drop a request; nothing is returned for it."""

    def count_steps(self, request: GenerationRequest) -> int:
        """Return the steps that a request takes."""

    def steps_done_of(self, request_id: int, /) -> int:
        """Return the steps made for a request so far; from any thread."""

    def step(self) -> list[Result]:
        """Take one step and return what is finished."""

    def device_works(self) -> bool:
        """Return whether the device still works."""

    def read_prompt(self, prompt: str, /) -> PromptTokens:
        """Return what the text encoder reads of a prompt; from any thread."""


@dataclass
class _InFlight:
    request: GenerationRequest
    request_id: int
    steps_done: int = 0  # as last reported: the engine forgets a clip before it is decoded


class EngineWorker(SubmittedStreams):
    """One engine and the thread that steps it. A `Backend` that serves one model.

    An error may leave the engine's device unusable. The worker then fails the requests in flight
    with `EngineLost` and accepts no more; its process should end.

    Parameters
    ----------
    engine : SteppedEngine
        Only the worker may step it.
    model : str
        Its model as "name@revision".
    on_broken : callable, optional
        Called once, in the worker's thread, after the device was lost.
    expect_s : callable, optional
        Estimates the seconds for requests as long as no step has been measured.

    Attributes
    ----------
    max_clips : int
        The most clips made at once.
    broken : bool
        Whether the device was lost.
    """

    def __init__(
        self,
        engine: SteppedEngine,
        model: str,
        *,
        on_broken: Callable[[], None] | None = None,
        expect_s: Callable[[Sequence[GenerationRequest]], float | None] = lambda requests: None,
    ) -> None:
        self.max_clips, self.model, self.broken = engine.max_clips, model, False
        self._engine, self._on_broken, self._expect_s = engine, on_broken, expect_s
        self._in_flight: dict[Future[Result], _InFlight] = {}
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._busy_s, self._steps, self._made = 0.0, 0, 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The model and the device, such as "demo on the CPU"."""
        device = self._engine.provenance.device  # such as "cpu" or "cuda (NVIDIA A10)"
        device_name = "CPU" if device == "cpu" else device.replace("cuda", "GPU")
        return f"{self.model.partition('@')[0]} on the {device_name}"

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with this engine's model and revision.

        Raises
        ------
        ModelUnavailable
            When another model, or another revision of this one, is requested.
        """
        return resolve_served(request, [self.model])

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of the engine's model."""
        return self._engine.codebook_size

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens]:
        """Return what the engine's text encoder reads of each prompt."""
        return [self._engine.read_prompt(prompt) for prompt in prompts]

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the estimated seconds for these requests, from the time of all steps so far."""
        if not requests:
            return 0.0
        if not self._steps:
            return self._expect_s(requests)
        steps = sum(map(self._engine.count_steps, requests))
        return steps / min(len(requests), self.max_clips) * self._busy_s / self._steps

    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Queue a request, which starts as soon as a slot is free.

        Parameters
        ----------
        request : GenerationRequest
            Resolved.
        on_chunk : callable, optional
            Called with the clip's sound, part by part, in the worker's thread.

        Returns
        -------
        Future of Clip or Failure
            Cancelling it aborts the request at the engine's next step.

        Raises
        ------
        Closing
            When the worker is being closed.
        EngineLost
            When its device is lost.
        """
        own = request.model_copy()  # so that equal requests are distinguishable
        future: Future[Result] = Future()
        with self._changed:
            self.check()
            self._in_flight[future] = _InFlight(own, self._engine.add_request(own, on_chunk))
            self._changed.notify_all()
        future.add_done_callback(lambda done: self._drop(done) if done.cancelled() else None)
        return future

    def progress(self, future: Future[Result]) -> tuple[int, int] | None:
        """Return the steps done and the total steps of an unfinished request."""
        with self._changed:
            making = self._in_flight.get(future)
        if making is None:
            return None
        steps_done = self._engine.steps_done_of(making.request_id)
        making.steps_done = max(making.steps_done, steps_done)
        return making.steps_done, self._engine.count_steps(making.request)

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Result]:
        """Make a clip or a failure of every request, in the order of finishing."""
        return generate_by_submitting(self.submit, requests, at_once=self.max_clips)

    def check(self) -> None:
        """Return if a request would be accepted now.

        Raises
        ------
        EngineLost, Closing
        """
        if self.broken:
            raise EngineLost(
                f"{self._engine.provenance.device} stopped working and this process must be "
                "restarted; send the request again in a moment"
            )
        if self._closing:
            raise Closing("the service is shutting down; send the request again in a moment")

    def describe(self) -> dict[str, Any]:
        """Return its state: `model`, `device`, `max_clips`, `in_flight`, `made`.

        Raises
        ------
        EngineLost, Closing
        """
        with self._changed:
            self.check()
            return {
                "model": self.model,
                "device": self._engine.provenance.device,
                "max_clips": self.max_clips,
                "in_flight": len(self._in_flight),
                "made": self._made,
            }

    def close(self, drain_s: float = 0.0) -> None:
        """Accept no more requests, wait up to `drain_s` seconds for running ones, end the thread.

        Requests that are unfinished by then fail with `Closing`.
        """
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._in_flight, timeout=drain_s)
            self._stopped = True
            self._changed.notify_all()
            unfinished = dict(self._in_flight)
        for future, making in unfinished.items():
            self._engine.abort(making.request_id)
            self._finish(future, Closing("the service shut down before this was made"))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._in_flight or self._stopped)
                if self._stopped:
                    return
            results = self._step()
            failure = next((result for result in results if isinstance(result, Failure)), None)
            if failure is not None and not self._engine.device_works():
                self._break([result for result in results if isinstance(result, Clip)], failure)
                return
            self._hand_over(results)

    def _step(self) -> list[Result]:
        started_s, steps_before = time.perf_counter(), self._engine.steps_done
        try:
            results = self._engine.step()
        except Exception as error:  # of the engine as a whole: no caller may wait forever
            with self._changed:
                in_flight = list(self._in_flight.values())
            for making in in_flight:
                self._engine.abort(making.request_id)
            return [Failure.from_error(making.request, error) for making in in_flight]
        with self._changed:
            self._busy_s += time.perf_counter() - started_s
            self._steps += self._engine.steps_done > steps_before
            self._made += len(results)
        return results

    def _break(self, clips: Sequence[Clip], cause: Failure) -> None:
        """Deliver the finished clips, fail the rest, and accept no more requests."""
        self._hand_over(clips)
        with self._changed:
            self.broken = True
            in_flight = dict(self._in_flight)
        message = f"the device stopped working ({cause.error_type}: {cause.message})"
        for future, making in in_flight.items():
            self._finish(
                future,
                Failure(making.request, EngineLost.__name__, message, traceback=cause.traceback),
            )
        if self._on_broken is not None:
            self._on_broken()

    def _hand_over(self, results: Sequence[Result]) -> None:
        with self._changed:
            futures = {id(making.request): future for future, making in self._in_flight.items()}
        for result in results:
            future = futures.get(id(result.request))
            if future is not None:  # it was not cancelled
                self._finish(future, result)

    def _drop(self, future: Future[Result]) -> None:
        with self._changed:
            making = self._in_flight.pop(future, None)
            self._changed.notify_all()
        if making is not None:
            self._engine.abort(making.request_id)

    def _finish(self, future: Future[Result], result: Result | Closing) -> None:
        with self._changed:
            making = self._in_flight.pop(future, None)
            self._changed.notify_all()
        if making is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(result, Closing):
            future.set_exception(result)
        else:
            future.set_result(result)
