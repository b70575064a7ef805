"""`ModalBackend`: clips from the service deployed on Modal, looked up by its name."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from musicgen_lab.backends.estimates import Estimate
from musicgen_lab.backends.event_loop import EventLoop
from musicgen_lab.backends.modal_errors import describe_failure, failure_of, raise_unavailable
from musicgen_lab.backends.prices import Cost, Prices
from musicgen_lab.backends.submitting import (
    LOST,
    REQUEST_ID,
    TRIES,
    Result,
    SubmittedStreams,
    check_at_once,
    generate_by_submitting,
    resolve_served,
)
from musicgen_lab.backends.wire import check_format, plain, unpack, unpack_chunk, unpack_prompts
from musicgen_lab.clip import Clip
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.fields import TOP_K_MAX
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source
from musicgen_lab.streaming import OnChunk

if TYPE_CHECKING:
    from musicgen_lab.backends import OnProgress

APP, CLASS, ABOUT, READ_PROMPTS = "musicgen", "MusicGen", "about", "read_prompts"
POLL_S = 50.0  # timeout of one poll of a call
CANCEL_S = 10.0  # for sending cancellations to Modal
RESEND_S = 24 * 3600.0  # age of what clips begin with, which the app forgets after a week


class ModalBackend(SubmittedStreams):
    """The service that `modal deploy service/app.py` deployed, called by name.

    What clips begin with is sent once a day, to a dict of the app, which forgets it after a week
    unused. All requests are in flight at once: Modal sends each to a container with free capacity,
    and adds containers. A request whose container is lost is sent again, at most twice; a clip's
    provenance has `containers_lost`. It works inside notebooks.

    Parameters
    ----------
    app : str
        Name of the deployed app.
    cls : str or modal.Cls
        Name of its GPU class, or the class itself for code that is part of the same app.
    environment : str, optional
        Modal's environment; by default the active one.
    at_once : int
        Requests in flight at once.
    prices : Mapping of str to float, optional
        Your own dollars per second, by GPU, "CPU" (a core) and "memory" (a GiB), in place of those
        in the dated list of `musicgen_lab.backends.prices`.
    about : Mapping, optional
        The service's description, if known; otherwise the service is queried.
    read_prompts : modal.Function, optional
        The app's function of this name, for code that is part of the same app.
    require : async callable, optional
        Awaited with a request's model before the request is sent; raises `ModelLoading` while the
        model is not available yet.

    Raises
    ------
    InvalidRequest
        When `at_once` is less than 1, or a price is not a number.
    """

    def __init__(
        self,
        app: str = APP,
        cls: str | Any = CLASS,
        *,
        environment: str | None = None,
        at_once: int = 1000,
        prices: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
        read_prompts: Any = None,
        require: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._app, self._cls, self._environment = app, cls, environment
        self._at_once = check_at_once(at_once)
        self._prices = Prices.with_own(prices)
        self._loop = EventLoop("modal backend")
        self._known_about, self._require = about, require
        self._read_prompts = read_prompts
        self._models: dict[str, Any] = {}  # by identity: the class with its parameter
        self._sent_sources: dict[str, tuple[asyncio.Future[bool], float]] = {}  # by digest; when

    @property
    def name(self) -> str:
        """The app, and its environment if one was given."""
        where = f" in {self._environment}" if self._environment else ""
        return f"modal ({self._app}{where})"

    @property
    def max_clips(self) -> int:
        """The most clips that all containers together make at once."""
        about = self._about()
        clips = sum(min(by_gpu.values()) for by_gpu in about["clips_at_once"].values())
        return int(clips) * int(about["containers_max"])

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with the deployed model and its revision.

        Raises
        ------
        BackendUnavailable
            When the service is not deployed, uses another format, or Modal cannot be reached.
        ModelUnavailable
            When the deployment does not serve that model.
        """
        return resolve_served(request, self._about()["models"])

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a prepared model, or the most that any model has."""
        return int(self._about().get("codebook_sizes", {}).get(model, TOP_K_MAX))

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens] | None:
        """Return what a model's text encoder reads of each prompt; None if it is not prepared.

        This starts a container without a GPU.

        Raises
        ------
        BackendUnavailable
            When Modal cannot be reached, the app was deployed from a version without this, or the
            answer cannot be read.
        """
        self._about()  # raises where there is no app at all
        function = self._read_prompts or self._function(READ_PROMPTS)
        answer = self._call(function, model, list(prompts))
        return None if answer is None else unpack_prompts(answer, len(prompts))

    def submit(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> Future[Result]:
        """Send a resolved request; cancelling the future cancels it on Modal too.

        Parameters
        ----------
        request : GenerationRequest
        on_chunk : callable, optional
            Called with the clip's sound, part by part, in this backend's thread.
        """
        self._about()  # raises for a service of another format before anything is made
        stream = None if on_chunk is None else _Stream(request, on_chunk)
        return self._loop.start(self._make(request, REQUEST_ID.get(), stream))

    def settle(self) -> None:
        """Wait a moment for what was cancelled to be cancelled on Modal too."""
        self._loop.settle(CANCEL_S)

    def progress(self, future: Future[Result]) -> None:
        """Return None: Modal does not report the progress of a call."""

    def check(self) -> None:
        """Do nothing: whether Modal accepts a request is only known when it is sent."""

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Result]:
        """Make a clip or a failure of every request, in the order of finishing.

        An error of one request becomes that request's failure. An error that concerns all of them,
        such as a service that was stopped, is raised.
        """
        try:
            yield from generate_by_submitting(self.submit, requests, at_once=self._at_once)
        finally:
            self.settle()

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the approximate wall-clock seconds with all containers that may start."""
        return Estimate(self._about(), self._prices).wait_s(requests)

    def estimate_cost(self, requests: Sequence[GenerationRequest]) -> Cost | None:
        """Return the approximate GPU-seconds and dollars for making these clips.

        Includes the container's CPU cores and memory, its start and its idle time at the end. None
        if the model or the GPU is unknown.
        """
        return Estimate(self._about(), self._prices).cost(requests)

    def describe(self) -> dict[str, Any]:
        """Return the description of a GPU container, starting one if necessary.

        Raises
        ------
        BackendUnavailable
        """
        first = str(self._about()["models"][0])

        async def ask() -> dict[str, Any]:
            model = await self._model(first)
            described: dict[str, Any] = await model.describe.remote.aio()
            return described

        try:
            described = self._loop.wait(ask())
        except Exception as error:
            self.raise_unavailable(error)
            failure = describe_failure(error)
            raise BackendUnavailable(f"{failure[0]}: {failure[1]}") from error
        if "error" in described:  # its model cannot be opened, or its device is lost
            raise BackendUnavailable(described["error"])
        return described

    def spawn(self, request: GenerationRequest, *, report: bool) -> Any:
        """Send a resolved request and return Modal's call for it, without waiting for its result.

        Parameters
        ----------
        request : GenerationRequest
        report : bool
            Whether the GPU class records its progress.
        """
        request_id = REQUEST_ID.get()

        async def send() -> Any:
            await self._send_source(request.begin_with)
            model = await self._require_model(str(request.model))
            return await _spawn(model, request, request_id=request_id, report=report)

        try:
            return self._loop.wait(send())
        except Exception as error:
            self.raise_unavailable(error)
            raise BackendUnavailable(": ".join(describe_failure(error))) from error

    def wait_for(self, call: Any, request: GenerationRequest) -> Future[Result]:
        """Return a future for a spawned call's result; cancelling it does not cancel the call."""
        return self._loop.start(self._read(_wait_for(call), request))

    def raise_unavailable(self, error: Exception) -> None:
        """Raise if a Modal error concerns every request.

        Raises
        ------
        BackendUnavailable
        """
        raise_unavailable(error, self._app, self._environment)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Raise `BackendUnavailable` for an error of Modal's that concerns every request.

        Raises
        ------
        BackendUnavailable
        """
        try:
            yield
        except Exception as error:
            self.raise_unavailable(error)
            raise

    def close(self, drain_s: float = 0.0) -> None:
        """Cancel all requests in flight, here and on Modal."""
        self._loop.close(CANCEL_S)

    def _about(self) -> Mapping[str, Any]:
        """Return the service's description; this starts no GPU."""
        if self._known_about is None:
            about = self._call(self._function(ABOUT))
            check_format(about.get("format"))
            self._known_about = about
        return self._known_about

    def _function(self, name: str) -> Any:
        import modal

        return modal.Function.from_name(self._app, name, environment_name=self._environment)

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Return what a function of the app returns, which starts no GPU."""
        from modal.exception import NotFoundError

        async def call() -> Any:
            return await function.remote.aio(*arguments)

        try:
            return self._loop.wait(call())
        except Exception as error:
            if isinstance(error, NotFoundError) and self._known_about is not None:
                raise BackendUnavailable(
                    f"the app {self._app!r} was deployed from another version and lacks a function "
                    "that this one calls; deploy it again: `modal deploy service/app.py`"
                ) from error
            self.raise_unavailable(error)
            raise BackendUnavailable(
                f"the app {self._app!r} did not answer "
                f"({': '.join(describe_failure(error))}); see `modal app logs {self._app}`"
            ) from error

    async def _model(self, identity: str) -> Any:
        """Return the GPU class for a model."""
        import modal

        if identity not in self._models:
            cls = self._cls
            if isinstance(cls, str):
                cls = modal.Cls.from_name(self._app, cls, environment_name=self._environment)
            self._models[identity] = cls(model=identity)
        return self._models[identity]

    async def _require_model(self, identity: str) -> Any:
        """Return the GPU class for a model that is available now."""
        if self._require is not None:
            await self._require(identity)
        return await self._model(identity)

    async def _make(
        self, request: GenerationRequest, request_id: str, stream: _Stream | None
    ) -> Result:
        for lost in range(TRIES):
            if stream is None:
                answer = self._send(request, request_id)
            else:
                answer = self._hear(stream, request_id)
            result = await self._read(answer, request)
            if isinstance(result, Clip):
                return self.add_cost(result, containers_lost=lost)
            if result.error_type not in LOST or (stream is not None and stream.sent):
                return result  # sound that was heard cannot begin again
            if lost + 1 == TRIES:
                return replace(result, message=f"{result.message}; this happened {TRIES} times")
        raise AssertionError("the loop returns")

    async def _send(self, request: GenerationRequest, request_id: str) -> Mapping[str, Any]:
        """Send a request and return the response; cancelling this cancels the call too."""
        await self._send_source(request.begin_with)
        model = await self._require_model(str(request.model))
        call = await _spawn(model, request, request_id=request_id)
        try:
            return await _wait_for(call)
        except asyncio.CancelledError:
            await asyncio.shield(call.cancel.aio())
            raise

    async def _hear(self, stream: _Stream, request_id: str) -> Mapping[str, Any]:
        """Send a request, hand on its sound, and return the response that ends it."""
        await self._send_source(stream.request.begin_with)
        model = await self._require_model(str(stream.request.model))
        fields = plain(stream.request.model_dump())
        messages = model.stream.remote_gen.aio(fields, request_id=request_id)
        called = asyncio.ensure_future(anext(messages))  # the first one has the id of the call
        result: Mapping[str, Any] | None = None
        try:
            await asyncio.shield(called)
            async for message in messages:
                if "status" in message:
                    result = message
                else:
                    stream.hand_on(message)
        finally:
            if result is None:
                await asyncio.shield(_cancel_call(called))
        if result is None:
            raise ValueError("the stream ended before the clip")
        return result

    async def _read(
        self, answer: Coroutine[Any, Any, Mapping[str, Any]], request: GenerationRequest
    ) -> Result:
        """Return the result in a response, or the failure described by its error."""
        try:
            return unpack(await answer, request)
        except Exception as error:
            self.raise_unavailable(error)
            return failure_of(request, error)

    def add_cost(self, clip: Clip, *, containers_lost: int = 0) -> Clip:
        """Return the clip with its GPU-seconds and cost in its provenance."""
        made_by = clip.provenance
        details: dict[str, Any] = {**made_by.details, "containers_lost": containers_lost}
        gpu = self._prices.find(made_by.device)
        if gpu is not None:
            gpu_s = clip.elapsed_s  # the clip's share of its batch
            usd = gpu_s * Estimate(self._about(), self._prices).usd_per_s(gpu)
            details |= {"gpu": gpu, "gpu_s": gpu_s, "cost_usd": usd}
            details["priced_at"] = self._prices.priced_at
        return replace(clip, provenance=replace(made_by, details=details))

    async def _send_source(self, source: Source | None) -> None:
        """Put what a clip begins with where containers read it; each content once a day.

        One without content is left to be there already.
        """
        if source is None or source.content is None:
            return
        _, sent_s = self._sent_sources.get(source.digest, (None, -math.inf))
        if time.time() - sent_s > RESEND_S:
            import modal

            entries = modal.Dict.from_name(
                f"{self._app}-sources", environment_name=self._environment, create_if_missing=True
            )
            putting = entries.put.aio(source.digest, source.content)
            self._sent_sources[source.digest] = asyncio.ensure_future(putting), time.time()
        try:
            await asyncio.shield(self._sent_sources[source.digest][0])
        except Exception:
            self._sent_sources.pop(source.digest, None)  # it is tried again with the next request
            raise


async def _spawn(model: Any, request: GenerationRequest, **options: Any) -> Any:
    """Return the call for a request; if cancelled while spawning, cancel the call on Modal too."""
    spawning = asyncio.ensure_future(
        model.generate.spawn.aio(plain(request.model_dump()), **options)
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        call = await spawning
        await call.cancel.aio()
        raise


@dataclass
class _Stream:
    """A request whose sound is handed on."""

    request: GenerationRequest
    on_chunk: OnChunk
    sent: int = 0  # samples per channel

    def hand_on(self, message: Mapping[str, Any]) -> None:
        chunk = unpack_chunk(message, self.request, self.sent)
        self.sent += chunk.samples.shape[1]
        self.on_chunk(chunk)


async def _cancel_call(called: asyncio.Future[Mapping[str, Any]]) -> None:
    """Cancel the call of a stream as soon as its first message, which has its id, has come."""
    import modal

    await asyncio.wait([called])
    if not called.cancelled() and not called.exception():
        await modal.FunctionCall.from_id(str(called.result()["call"])).cancel.aio()


async def _wait_for(call: Any) -> Mapping[str, Any]:
    while True:
        try:
            answer: Mapping[str, Any] = await call.get.aio(timeout=POLL_S)
            return answer
        except TimeoutError:
            continue  # the builtin TimeoutError: the clip is not finished yet
