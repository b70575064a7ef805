"""`ModelContainer`: the model and engine of one GPU container of the service on Modal.

A container whose model cannot be opened must not fail to start: Modal would restart it again and
again, and charge for it. It starts, reports the error in every response, and soon becomes idle.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from musicgen_lab.backends.wire import FORMAT, pack, pack_chunk, plain
from musicgen_lab.clip import Failure
from musicgen_lab.engine.capacity import ROWS_PER_CLIP
from musicgen_lab.engine.guidance import row_texts
from musicgen_lab.errors import BackendUnavailable, InvalidRequest, ModelUnavailable
from musicgen_lab.limits import DURATION_MIN_S
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source
from musicgen_lab.streaming import OnChunk, SoundChunk

if TYPE_CHECKING:
    from musicgen_lab.backends.worker import EngineWorker
    from musicgen_lab.engine.capacity import Capacity
    from musicgen_lab.engine.model import Model

Report: TypeAlias = "Callable[[int, int], Awaitable[None]]"
REPORT_EVERY_S = 1.0
SOURCES_KEPT = 8  # in memory
SAID_OF_FAILURES = ("error_type", "message", "traceback")
logger = logging.getLogger(__name__)


class ModelContainer:
    """A model that makes clips for the messages sent to one container.

    Parameters
    ----------
    model : str
        "name@revision".
    device : str
        As `Engine.open` takes it.
    fetch : callable
        Puts the model's weights into this container's folder of prepared models; raises
        `ModelUnavailable` if they are not available.
    read_source : async callable
        Takes the digest of what a clip begins with; returns its content, None if it is not there.
    on_broken : callable
        Called once the device no longer works: this container should end.
    on_room : callable
        Called with the number of clips that this container can take at once, whenever it changes:
        those in progress, plus as many of the maximum length as fit in the remaining memory. So no
        clip waits here for memory while another container could make it.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str,
        fetch: Callable[[str], None],
        read_source: Callable[[str], Awaitable[bytes | None]],
        on_broken: Callable[[], None],
        on_room: Callable[[int], None],
    ) -> None:
        self._model, self._device, self._fetch = model, device, fetch
        self._on_broken, self._on_room = on_broken, on_room
        self._read_source = read_source
        self._sources: OrderedDict[str, Source] = OrderedDict()  # of the last few clips, by digest
        self._capacity: Capacity | None = None
        self._making: list[GenerationRequest] = []  # the clips in progress
        self._room = 0  # as last reported
        self._loaded: Model | None = None
        self._worker: EngineWorker | None = None
        self._error: Exception | None = None

    def load(self) -> None:
        """Import the program and read the weights into memory, before a snapshot is taken of it.

        Errors are logged and left to `open`: a snapshot must not preserve them.
        """
        try:
            self._loaded = self._read()
        except Exception:
            logger.exception("the model %s could not be read", self._model)

    def open(self) -> None:
        """Copy the model to the device and make a clip of 1 s with it.

        This compiles and records what would otherwise be compiled for the first caller. Errors are
        logged and reported in every response.
        """
        from musicgen_lab.backends.worker import EngineWorker
        from musicgen_lab.engine.engine import Engine
        from musicgen_lab.engine.options import EngineOptions

        try:
            model = self._loaded or self._read()
            engine = Engine.from_model(model, EngineOptions(self._device))
            request = GenerationRequest(prompt="warm-up", duration=DURATION_MIN_S, seed=0)
            for result in engine.generate([request.with_model(self._model)]):
                if isinstance(result, Failure):
                    raise RuntimeError(f"{result.error_type}: {result.message}")
            self._capacity = engine.capacity
            self._worker = EngineWorker(engine, self._model, on_broken=self._on_broken)
        except Exception as error:
            self._error = error
            logger.exception("the model %s cannot be served", self._model)
        self._loaded = None  # its memory is free now
        self._tell_room()

    def _read(self) -> Model:
        import musicgen_lab.engine.engine  # noqa: F401  # takes seconds, before a snapshot
        from musicgen_lab.conversion.prepare import prepare
        from musicgen_lab.engine.model import Model
        from musicgen_lab.models.locate import locate

        self._fetch(self._model)
        model = Model(prepare(locate(self._model)))
        model.load()
        return model

    async def generate(
        self,
        fields: Mapping[str, Any],
        request_id: str,
        report: Report | None,
        on_chunk: OnChunk | None = None,
    ) -> dict[str, Any]:
        """Make one clip.

        Parameters
        ----------
        fields : Mapping
            Of a `GenerationRequest`.
        request_id : str
            The caller's id of this request in its log; empty for none.
        report : async callable or None
            Awaited with the steps done and the total steps, at most once a second.
        on_chunk : callable, optional
            Called with the clip's sound, part by part, in the engine's thread.

        Returns
        -------
        dict
            A message of `musicgen_lab.backends.wire`. A failure is returned like a clip: an
            exception could only be unpickled by callers that have its class.
        """
        line: dict[str, Any] = {"request_id": request_id, "model": self._model}
        message = await self._make(fields, line, report, on_chunk)
        logger.info(json.dumps(line))
        return message

    async def stream(
        self, fields: Mapping[str, Any], request_id: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """Make one clip and yield its sound meanwhile; its slot is freed when this is closed.

        Parameters
        ----------
        fields, request_id
            As for `generate`.

        Yields
        ------
        dict
            `wire.pack_chunk` of every chunk, and at last what `generate` returns.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[SoundChunk | None] = asyncio.Queue()

        def put(chunk: SoundChunk) -> None:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        making = asyncio.ensure_future(self.generate(fields, request_id, None, put))
        making.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                yield pack_chunk(chunk)
            yield making.result()
        finally:
            making.cancel()

    def describe(self) -> dict[str, Any]:
        """Return the state of this container, or why it cannot serve, as plain values."""
        if self._worker is None:
            return plain({"model": self._model, "error": str(self._error)})
        try:
            return plain(self._worker.describe())
        except BackendUnavailable as error:
            return plain({"model": self._model, "error": str(error)})

    def close(self, drain_s: float) -> None:
        """Let running clips finish, for at most `drain_s` seconds."""
        if self._worker is not None:
            self._worker.close(drain_s=drain_s)

    def _tell_room(self) -> None:
        room = count_room(self._capacity, self._making) if self._capacity else 1
        if room != self._room:
            self._room = room
            self._on_room(room)

    async def _with_source(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """Return the request of fields, with the content of what it begins with.

        Raises
        ------
        InvalidRequest
            When there is no such content, or it cannot be begun with.
        """
        request = GenerationRequest(**fields)
        if request.begin_with is None:
            return request
        digest = request.begin_with.digest
        if digest not in self._sources:
            content = await self._read_source(digest)
            if content is None:
                raise InvalidRequest(
                    f"the service has no begin_with {digest[:12]}…; send the request again with "
                    "the sound",
                    field="begin_with",
                    value=digest,
                )
            source = await asyncio.to_thread(Source.of_bytes, content, f"begin_with {digest[:12]}…")
            if source.digest != digest:
                raise InvalidRequest(
                    f"begin_with {digest[:12]}… is stored with another content",
                    field="begin_with",
                    value=digest,
                )
            self._sources[digest] = source
        self._sources.move_to_end(digest)
        while len(self._sources) > SOURCES_KEPT:
            self._sources.popitem(last=False)
        return GenerationRequest(**{**dict(request), "begin_with": self._sources[digest]})

    async def _make(
        self,
        fields: Mapping[str, Any],
        line: dict[str, Any],
        report: Report | None,
        on_chunk: OnChunk | None,
    ) -> dict[str, Any]:
        try:
            if self._worker is None:
                raise ModelUnavailable(str(self._error))
            request = self._worker.resolve(await self._with_source(fields))
            line |= {"duration": request.duration, "seed": request.seed}
            making = self._worker.submit(request, on_chunk)
            self._making.append(request)
            self._tell_room()
            waiting = asyncio.wrap_future(making)
            try:
                while report is not None and not waiting.done():
                    await report(*(self._worker.progress(making) or (0, 0)))
                    await asyncio.wait([waiting], timeout=REPORT_EVERY_S)
                result = await waiting
            finally:
                making.cancel()  # where Modal cancels this input
                self._making.remove(request)
                self._tell_room()
            message = pack(result)
            line |= {"status": message["status"], "elapsed_s": round(result.elapsed_s, 6)}
            line |= {name: message[name] for name in SAID_OF_FAILURES if name in message}
        except Exception as error:
            expected = isinstance(error, InvalidRequest | ModelUnavailable)
            description = {"error_type": type(error).__name__, "message": str(error)}
            description["traceback"] = "" if expected else traceback.format_exc()
            line |= {"status": "failed", **description}
            failed = {"format": FORMAT, "status": "failed", "request": dict(fields)}
            return plain({**failed, **description, "elapsed_s": 0.0})
        return message


def count_room(capacity: Capacity, clips: Sequence[GenerationRequest]) -> int:
    """Return how many clips a container can take without any of them waiting for memory.

    Parameters
    ----------
    capacity : Capacity
        Of its engine.
    clips : sequence of GenerationRequest
        Those in progress, which are counted too.
    """
    blocks, rows = capacity.blocks, capacity.max_rows
    for clip in clips:
        texts = row_texts(clip)
        blocks -= capacity.clip_blocks(clip.duration, rows=len(texts), texts=len({*texts} - {""}))
        rows -= len(texts)
    longest = min(blocks // capacity.clip_blocks(capacity.config.window_s), rows // ROWS_PER_CLIP)
    return max(min(len(clips) + max(longest, 0), capacity.max_clips), 1)
