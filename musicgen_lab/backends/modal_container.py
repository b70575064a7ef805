"""`ModelContainer`: what one GPU container of the service on Modal holds.

A container whose model cannot be opened must not fail to start: Modal would start it again and
again, for money. It starts, says in every answer what is wrong, and is idle soon.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from musicgen_lab.backends.wire import FORMAT, pack, plain
from musicgen_lab.clip import Failure
from musicgen_lab.errors import BackendUnavailable, InvalidRequest, ModelUnavailable
from musicgen_lab.request import DURATION_MIN_S, GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.backends.worker import EngineWorker
    from musicgen_lab.engine.model import Model

Report: TypeAlias = "Callable[[int, int], Awaitable[None]]"
REPORT_EVERY_S = 1.0
SAID_OF_FAILURES = ("error_type", "message", "traceback")
logger = logging.getLogger(__name__)


class ModelContainer:
    """A model that makes clips for the messages that reach one container.

    Parameters
    ----------
    model : str
        "name@revision".
    device : str
        As `Engine.open` takes it.
    fetch : callable
        Makes the model's weights lie in this container's folder of prepared models; raises
        `ModelUnavailable` where they cannot be had.
    on_broken : callable
        Called once the device no longer works: this container should end.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str,
        fetch: Callable[[str], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._model, self._device, self._fetch = model, device, fetch
        self._on_broken = on_broken
        self._loaded: Model | None = None
        self._worker: EngineWorker | None = None
        self._error: Exception | None = None

    def load(self) -> None:
        """Import the program and read the weights into memory, before a snapshot is taken of it.

        What goes wrong is logged and left to `open`: a snapshot must not keep it for ever.
        """
        try:
            self._loaded = self._read()
        except Exception:
            logger.exception("the model %s could not be read", self._model)

    def open(self) -> None:
        """Put the model onto the device and make a clip of a second with it.

        That compiles and records what would else be compiled for the first caller. What goes wrong
        is kept for the answers, and logged.
        """
        from musicgen_lab.backends.worker import EngineWorker
        from musicgen_lab.engine.engine import Engine

        try:
            model = self._loaded or self._read()
            engine = Engine.from_model(model, device=self._device)
            request = GenerationRequest(prompt="warm-up", duration=DURATION_MIN_S, seed=0)
            for result in engine.generate([request.with_model(self._model)]):
                if isinstance(result, Failure):
                    raise RuntimeError(f"{result.error_type}: {result.message}")
            self._worker = EngineWorker(engine, self._model, on_broken=self._on_broken)
        except Exception as error:
            self._error = error
            logger.exception("the model %s cannot be served", self._model)
        self._loaded = None  # its memory is free now

    def _read(self) -> Model:
        import musicgen_lab.engine.engine  # noqa: F401  # takes seconds, before a snapshot
        from musicgen_lab.engine.model import Model
        from musicgen_lab.engine.source import locate

        self._fetch(self._model)
        model = Model(locate(self._model).prepare())
        model.load()
        return model

    @property
    def slots(self) -> int:
        """Clips made at once; 1 where the model cannot be opened."""
        return self._worker.slots if self._worker else 1

    async def generate(
        self, fields: Mapping[str, Any], request_id: str, report: Report | None
    ) -> dict[str, Any]:
        """Make one clip.

        Parameters
        ----------
        fields : Mapping
            Of a `GenerationRequest`.
        request_id : str
            Under which whoever asked has it in a log; empty for none.
        report : async callable or None
            Awaited with the steps done and the steps in all, at most once a second.

        Returns
        -------
        dict
            A message of `musicgen_lab.backends.wire`. A failure is returned like a clip: an
            exception could be read only by callers that have its class.
        """
        line: dict[str, Any] = {"request_id": request_id, "model": self._model}
        message = await self._make(fields, line, report)
        logger.info(json.dumps(line))
        return message

    def describe(self) -> dict[str, Any]:
        """Return what this container is doing, or why it can do nothing, as plain values."""
        if self._worker is None:
            return plain({"model": self._model, "error": str(self._error)})
        try:
            return plain(self._worker.describe())
        except BackendUnavailable as error:
            return plain({"model": self._model, "error": str(error)})

    def close(self, drain_s: float) -> None:
        """Let running clips finish, at most so long."""
        if self._worker is not None:
            self._worker.close(drain_s=drain_s)

    async def _make(
        self, fields: Mapping[str, Any], line: dict[str, Any], report: Report | None
    ) -> dict[str, Any]:
        try:
            if self._worker is None:
                raise ModelUnavailable(str(self._error))
            request = self._worker.resolve(GenerationRequest(**fields))
            line |= {"duration": request.duration, "seed": request.seed}
            making = self._worker.submit(request)
            waiting = asyncio.wrap_future(making)
            try:
                while report is not None and not waiting.done():
                    await report(*(self._worker.progress(making) or (0, 0)))
                    await asyncio.wait([waiting], timeout=REPORT_EVERY_S)
                result = await waiting
            finally:
                making.cancel()  # where Modal cancels this input
            message = pack(result)
            line |= {"status": message["status"], "elapsed_s": round(result.elapsed_s, 6)}
            line |= {name: message[name] for name in SAID_OF_FAILURES if name in message}
        except Exception as error:
            expected = isinstance(error, InvalidRequest | ModelUnavailable)
            said = {"error_type": type(error).__name__, "message": str(error)}
            said["traceback"] = "" if expected else traceback.format_exc()
            line |= {"status": "failed", **said}
            failed = {"format": FORMAT, "status": "failed", "request": dict(fields)}
            return plain({**failed, **said, "elapsed_s": 0.0})
        return message
