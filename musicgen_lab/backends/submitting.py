"""Backends that take one request at a time: `submit` returns a future that can be cancelled.

A web server and a Modal client work like this: requests come whenever they come, and their callers
may leave.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable, ModelUnavailable
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.backends import OnProgress

Result = Clip | Failure
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="")
"""Under which the request that is being answered now is logged, also where its clip is made."""

RETRY_AFTER_S = 5  # where nothing better is known
LOST = ("ContainerLost", "EngineLost")  # failures that say nothing of their request: sent again
TRIES = 3  # of a request that is lost on the way


class RetryLater(BackendUnavailable):
    """A backend that takes no request now; the same request is worth sending again.

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
    """The backend is shutting down; what it had not finished is not made."""


class EngineLost(RetryLater):
    """The engine's device no longer works; another process must take over."""


class ModelLoading(RetryLater):
    """The model's weights are not there yet, and will not be while a client waits.

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
        """What makes the clips, in a few words."""

    @property
    def slots(self) -> int:
        """Clips made at once; more of them wait."""

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model named and its revision fixed."""

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Start on a resolved request; cancelling the future frees its slot."""

    def progress(self, future: Future[Result]) -> tuple[int, int] | None:
        """Return the steps done and the steps in all of what was submitted.

        None where the backend cannot see into clips in the making.
        """

    def check(self) -> None:
        """Return where a request would be taken now; nobody else is asked.

        Raises
        ------
        BackendUnavailable
        """

    def describe(self) -> dict[str, Any]:
        """Return what the model's process says of itself, which may start one.

        Raises
        ------
        BackendUnavailable
        """

    def close(self, drain_s: float = 0.0) -> None:
        """Take nothing more, wait so long for what runs, then fail the rest with `Closing`."""


def generate_by_submitting(
    submit: Callable[[GenerationRequest], Future[Result]],
    requests: Iterable[GenerationRequest],
    *,
    at_once: int,
    on_progress: OnProgress | None = None,
    events: queue.SimpleQueue[Future[Result] | float] | None = None,
) -> Iterator[Result]:
    """Yield the results of submitted requests in the order of finishing, `at_once` in flight.

    When the caller stops, what is in flight is cancelled.

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
