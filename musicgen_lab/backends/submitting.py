"""Backends that take one request at a time: `submit` returns a future that can be cancelled.

A web server and a Modal client work like this: requests arrive at any time, and their callers may
disconnect.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable, InvalidRequest, ModelUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import ClipFailed, OnChunk, SoundChunk

if TYPE_CHECKING:
    from musicgen_lab.backends import OnProgress
    from musicgen_lab.models.prompt_tokens import PromptTokens

Result = Clip | Failure
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""The id of the request that is being handled, for the log here and where its clip is made."""

RETRY_AFTER_S = 5  # the default
LOST = ("ContainerLost", "EngineLost")  # failures not caused by the request: it is sent again
TRIES = 3  # of a request that is lost on the way


class RetryLater(BackendUnavailable):
    """The backend accepts no request now; sending the same request later may succeed.

    Parameters
    ----------
    message : str
        One sentence.
    retry_after_s : int
        In how many whole seconds.
    """

    def __init__(self, message: str, *, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(RetryLater):
    """Too many requests are waiting already."""


class Closing(RetryLater):
    """The backend is shutting down; unfinished requests are dropped."""


class EngineLost(RetryLater):
    """The engine's device no longer works; a new process is needed."""


class ModelLoading(RetryLater):
    """The model's weights are still being fetched, which takes longer than a client can wait.

    Parameters
    ----------
    retry_after_s : int
        In how many whole seconds it is likely to be ready.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"the model is being loaded; send the request again in {retry_after_s} s",
            retry_after_s=retry_after_s,
        )


class Submits(Protocol):
    """What the web app serves: it takes one request at a time, from any thread."""

    @property
    def name(self) -> str:
        """A short description of the model and the device."""

    @property
    def max_clips(self) -> int:
        """The most clips made at once; further requests wait."""

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model named and its revision fixed."""

    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Submit a resolved request; cancelling the future frees its slot.

        Parameters
        ----------
        request : GenerationRequest
        on_chunk : callable, optional
            Called with the clip's sound, part by part, in another thread.
        """

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a served model, or the most that any model has."""

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens] | None:
        """Return what a served model's text encoder reads of each prompt; None if unknown.

        May block, and be called from any thread.

        Raises
        ------
        BackendUnavailable
        """

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the estimated seconds for making resolved requests, or None if unknown."""

    def progress(self, future: Future[Result]) -> tuple[int, int] | None:
        """Return the steps done and the total steps of a submitted request.

        None if the backend does not report progress.
        """

    def check(self) -> None:
        """Return if a request would be accepted now, without contacting another process.

        Raises
        ------
        BackendUnavailable
        """

    def describe(self) -> dict[str, Any]:
        """Return a description by the model's process, which may be started for it.

        Raises
        ------
        BackendUnavailable
        """

    def close(self, drain_s: float = 0.0) -> None:
        """Accept no more requests, wait `drain_s` seconds for running ones, fail the rest."""


def check_at_once(at_once: int) -> int:
    """Return how many requests may be in flight at once.

    Raises
    ------
    InvalidRequest
        When it is no whole number of 1 or more.
    """
    if not isinstance(at_once, int) or at_once < 1:
        raise InvalidRequest(
            f"at_once must be a whole number of 1 or more, got {at_once!r}",
            field="at_once",
            value=at_once,
        )
    return at_once


def generate_by_submitting(
    submit: Callable[[GenerationRequest], Future[Result]],
    requests: Iterable[GenerationRequest],
    *,
    at_once: int,
    on_progress: OnProgress | None = None,
    events: queue.SimpleQueue[Future[Result] | float] | None = None,
) -> Iterator[Result]:
    """Yield the results of submitted requests as they finish, with `at_once` in flight.

    When the caller stops iterating, the requests in flight are cancelled.

    Parameters
    ----------
    submit : callable
        Takes a resolved request, returns a future.
    requests : iterable of GenerationRequest
    at_once : int
    on_progress : callable, optional
        Called in the caller's thread with the seconds of audio that are put into `events`.
    events : queue.SimpleQueue, optional
        Where `submit` reports seconds of audio; finished futures are put there too.
    """
    source, more = iter(requests), True
    finished = events or queue.SimpleQueue()
    in_flight: set[Future[Result]] = set()
    try:
        while more or in_flight:
            while more and len(in_flight) < at_once:
                request = next(source, None)
                more = request is not None
                if request is not None:
                    future = submit(request)
                    in_flight.add(future)
                    future.add_done_callback(finished.put)
            if in_flight:
                done = finished.get()
                if isinstance(done, float):
                    if on_progress is not None:
                        on_progress(done)
                    continue
                in_flight.discard(done)
                yield done.result()
    finally:
        for future in in_flight:
            future.cancel()


def stream_by_submitting(
    submit: Callable[[GenerationRequest, OnChunk], Future[Result]],
    requests: Sequence[GenerationRequest],
) -> Generator[tuple[int, SoundChunk | Failure]]:
    """Yield the sound of all requests while they are made, each with its request's index.

    When the caller stops iterating, the requests in progress are cancelled.

    Parameters
    ----------
    submit : callable
        Takes a resolved request and what to call with its chunks, returns a future.
    requests : sequence of GenerationRequest
        All of them are submitted at once.

    Yields
    ------
    tuple of int and SoundChunk or Failure
        A request's last one is the chunk with its clip, or its failure.
    """
    events: queue.SimpleQueue[tuple[int, SoundChunk | Future[Result]]] = queue.SimpleQueue()
    futures: list[Future[Result]] = []

    def put(index: int, event: SoundChunk | Future[Result]) -> None:
        events.put((index, event))

    try:
        for index, request in enumerate(requests):
            future = submit(request, partial(put, index))
            futures.append(future)
            future.add_done_callback(partial(put, index))
        sent, steps, unfinished = [0] * len(futures), [0] * len(futures), len(futures)
        while unfinished:
            index, event = events.get()
            if isinstance(event, SoundChunk):
                sent[index], steps[index] = sent[index] + event.samples.shape[1], event.steps
                yield index, event
                continue
            unfinished -= 1
            result = event.result()
            if isinstance(result, Clip):
                yield index, last_chunk(result, sent=sent[index], steps=steps[index])
            else:
                yield index, result
    finally:
        for future in futures:
            future.cancel()


class SubmittedStreams(ABC):
    """The `Streams` of a backend that takes requests one at a time, as `Submits` does."""

    @abstractmethod
    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model named and its revision fixed."""

    @abstractmethod
    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Submit a resolved request; cancelling the future frees its slot."""

    def settle(self) -> None:  # noqa: B027  # most have nothing to wait for
        """Wait for what the end of a stream cancelled."""

    def stream(self, request: GenerationRequest) -> Generator[SoundChunk]:
        """Yield the sound of a request while it is made, as in `Streams`."""
        return of_one_request(self.stream_all([request]))

    def stream_all(
        self, requests: Sequence[GenerationRequest]
    ) -> Generator[tuple[int, SoundChunk | Failure]]:
        """Yield the sound of several requests while they are made, as in `Streams`."""
        return self._stream([self.resolve(request) for request in requests])

    def _stream(
        self, resolved: Sequence[GenerationRequest]
    ) -> Generator[tuple[int, SoundChunk | Failure]]:
        try:
            yield from stream_by_submitting(self.submit, resolved)
        finally:
            self.settle()


def of_one_request(
    streamed: Generator[tuple[int, SoundChunk | Failure]],
) -> Generator[SoundChunk]:
    """Yield the chunks of a stream that has one request.

    Parameters
    ----------
    streamed : generator
        As `stream_by_submitting`; it is closed with this one.

    Raises
    ------
    ClipFailed
    """
    with closing(streamed):
        for _, chunk in streamed:
            if isinstance(chunk, Failure):
                raise ClipFailed(chunk)
            yield chunk


def last_chunk(clip: Clip, *, sent: int, steps: int) -> SoundChunk:
    """Return the chunk that ends a stream: the clip, and those of its samples not sent yet."""
    return SoundChunk(
        samples=clip.samples[:, sent:],
        sample_rate=clip.sample_rate,
        start_s=sent / clip.sample_rate,
        steps_done=steps,
        steps=steps,
        total_samples=clip.samples.shape[1],
        clip=clip,
    )


def clip_of(future: Future[Result]) -> Clip | None:
    """Return the clip of a future that is done; None if it has none."""
    if future.cancelled() or future.exception() is not None:
        return None
    result = future.result()
    return result if isinstance(result, Clip) else None


def resolve_served(request: GenerationRequest, served: Sequence[str]) -> GenerationRequest:
    """Return the request with its model as one of the served "name@revision" strings.

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
