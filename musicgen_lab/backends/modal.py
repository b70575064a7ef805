"""`ModalBackend`: clips made by the deployed service on Modal, found by its name."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from musicgen_lab.backends.event_loop import EventLoop
from musicgen_lab.backends.modal_errors import describe_failure, raise_unavailable
from musicgen_lab.backends.prices import (
    MEMORY_BYTES_PER_S,
    PRICES_DATE,
    USD_PER_S,
    Cost,
    name_in_prices,
)
from musicgen_lab.backends.submitting import Result, generate_by_submitting, resolve_served
from musicgen_lab.backends.wire import check_format, unpack
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable, InvalidRequest
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.backends import OnProgress

APP, CLASS, ABOUT = "musicgen", "MusicGen", "about"
FRAME_RATE_HZ = 50
POLL_S = 50.0  # Modal answers "not yet" after this long, and is asked again
START_S = 60.0  # of a container, weights included; not measured
BANDWIDTH_SHARE = 0.5  # of the data sheet's, that reading the weights reaches; not measured
WEIGHTS_BYTES = {"small": 0.84e9, "medium": 3.0e9, "large": 6.6e9}  # in 16 bits


class ModalBackend:
    """The service that `modal deploy service/app.py` deployed, called by name.

    All requests are in flight at once: Modal gives each to a container that has room, and adds
    containers. It works inside notebooks.

    Parameters
    ----------
    app : str
        Name of the deployed app.
    cls : str
        Name of its GPU class.
    environment : str, optional
        Modal's environment; by default the active one.
    at_once : int
        Requests in flight at once.
    prices : Mapping of str to float, optional
        Dollars per second and GPU, instead of the dated list in `musicgen_lab.backends.prices`.
    about : Mapping, optional
        What the service says of itself, where it is known; it is asked otherwise.

    Raises
    ------
    InvalidRequest
        When `at_once` is less than 1.
    """

    def __init__(
        self,
        app: str = APP,
        cls: str = CLASS,
        *,
        environment: str | None = None,
        at_once: int = 1000,
        prices: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if at_once < 1:
            raise InvalidRequest(
                f"at_once must be 1 or more, got {at_once}", field="at_once", value=at_once
            )
        self._app, self._cls, self._environment, self._at_once = app, cls, environment, at_once
        self._prices = USD_PER_S if prices is None else prices
        self._priced_at = PRICES_DATE if prices is None else "your own prices"
        self._loop = EventLoop("modal backend")
        self._known_about = about
        self._models: dict[str, Any] = {}  # by identity: the class with its parameter

    @property
    def name(self) -> str:
        """The app, and its environment where one was named."""
        place = f" in {self._environment}" if self._environment else ""
        return f"modal ({self._app}{place})"

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with the deployed model and its revision.

        Raises
        ------
        BackendUnavailable
            When the service is not deployed, speaks another format, or Modal cannot be reached.
        ModelUnavailable
            When the deployment does not serve that model.
        """
        return resolve_served(request, self._about()["models"])

    def submit(self, request: GenerationRequest) -> Future[Result]:
        """Send a resolved request; cancelling the future cancels it on Modal too."""
        return self._loop.start(self._make(request))

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Result]:
        """Make a clip or a failure of every request, in the order of finishing.

        What Modal says of one request is that request's failure. What concerns all of them, such
        as a service that is gone, is raised.
        """
        return generate_by_submitting(self, requests, at_once=self._at_once)

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the seconds to wait, about, with as many containers as the service may have."""
        gpu_s = self._estimate_gpu_s(requests)
        if gpu_s is None or not requests:
            return gpu_s
        return START_S + gpu_s / self._count_containers(requests)

    def estimate_cost(self, requests: Sequence[GenerationRequest]) -> Cost | None:
        """Return the GPU-seconds and dollars that making these would take, about.

        A container's start and its idle time at the end are counted. None where nothing is known
        of the model or the GPU.
        """
        gpu_s = self._estimate_gpu_s(requests)
        gpu = self._gpu()
        if gpu_s is None or gpu not in self._prices:
            return None
        if requests:
            idle_s = START_S + self._about()["scaledown_window_s"]
            gpu_s += self._count_containers(requests) * idle_s
        return Cost(gpu, gpu_s, gpu_s * self._prices[gpu], self._priced_at)

    def describe(self) -> dict[str, Any]:
        """Return what a GPU container says of itself; this starts one.

        Raises
        ------
        BackendUnavailable
        """

        async def ask() -> dict[str, Any]:
            model = await self._model(self._about()["models"][0])
            described: dict[str, Any] = await model.describe.remote.aio()
            return described

        try:
            return self._loop.wait(ask())
        except Exception as error:
            raise_unavailable(error, self._app, self._environment)
            failure = describe_failure(error)
            raise BackendUnavailable(f"{failure[0]}: {failure[1]}") from error

    def close(self, drain_s: float = 0.0) -> None:
        """Cancel what is in flight, here and on Modal."""
        self._loop.cancel_all()

    def _about(self) -> Mapping[str, Any]:
        """Return what the service says of itself; no GPU is started for it."""
        if self._known_about is None:
            import modal

            async def ask() -> Mapping[str, Any]:
                function = modal.Function.from_name(
                    self._app, ABOUT, environment_name=self._environment
                )
                answer: Mapping[str, Any] = await function.remote.aio()
                return answer

            try:
                about = self._loop.wait(ask())
            except Exception as error:
                raise_unavailable(error, self._app, self._environment)
                raise BackendUnavailable(
                    f"the app {self._app!r} could not say what it serves "
                    f"({': '.join(describe_failure(error))}); see `modal app logs {self._app}`"
                ) from error
            check_format(about.get("format"))
            self._known_about = about
        return self._known_about

    async def _model(self, identity: str) -> Any:
        """Return the GPU class for a model."""
        import modal

        if identity not in self._models:
            cls = modal.Cls.from_name(self._app, self._cls, environment_name=self._environment)
            self._models[identity] = cls(model=identity)
        return self._models[identity]

    async def _make(self, request: GenerationRequest) -> Result:
        try:
            model = await self._model(str(request.model))
            call = await model.generate.spawn.aio(request.model_dump())
        except Exception as error:
            raise_unavailable(error, self._app, self._environment)
            return Failure(request, *describe_failure(error))
        try:
            return self._with_cost(unpack(await _wait_for(call), request))
        except asyncio.CancelledError:
            await asyncio.shield(call.cancel.aio())
            raise
        except BackendUnavailable:
            raise
        except Exception as error:
            raise_unavailable(error, self._app, self._environment)
            return Failure(request, *describe_failure(error))

    def _with_cost(self, result: Result) -> Result:
        """Return a clip that says what it took: `gpu_s`, `gpu`, `cost_usd`."""
        if not isinstance(result, Clip):
            return result
        made_by = result.provenance
        gpu = name_in_prices(made_by.device)
        if gpu is None or gpu not in self._prices:
            return result
        gpu_s = result.elapsed_s  # the clip's share of its batch
        cost = {"gpu": gpu, "gpu_s": gpu_s, "cost_usd": gpu_s * self._prices[gpu]}
        details = {**made_by.details, **cost, "priced_at": self._priced_at}
        return replace(result, provenance=replace(made_by, details=details))

    def _gpu(self) -> str:
        """Return the first GPU that the service asks for, as the price list names it."""
        first = next(iter(self._about()["gpu"]), "CPU")
        return name_in_prices(first, self._prices) or first

    def _count_containers(self, requests: Sequence[GenerationRequest]) -> int:
        """Return how many containers Modal is likely to start."""
        about = self._about()
        wanted = math.ceil(len(requests) / int(about["clips_at_once"]))
        return min(wanted, int(about["containers_max"]))

    def _estimate_gpu_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Estimate from the memory that a step reads; None for models of unknown size.

        Every step of a batch reads the weights once for all its clips.
        """
        gpu, total_s = self._gpu(), 0.0
        if gpu not in MEMORY_BYTES_PER_S:
            return None
        for request in requests:
            kind = str(request.model).partition("@")[0].rpartition("-")[2]
            if kind not in WEIGHTS_BYTES:
                return None
            step_s = WEIGHTS_BYTES[kind] / (MEMORY_BYTES_PER_S[gpu] * BANDWIDTH_SHARE)
            clips = min(len(requests), self._about()["clips_at_once"])
            total_s += request.duration * FRAME_RATE_HZ * step_s / clips
        return total_s


async def _wait_for(call: Any) -> Mapping[str, Any]:
    while True:
        try:
            answer: Mapping[str, Any] = await call.get.aio(timeout=POLL_S)
            return answer
        except TimeoutError:
            continue  # the builtin one: it is still being made
