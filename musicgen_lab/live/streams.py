"""`LiveStreams`: many clips in one response, as events while they are made."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np

from musicgen_lab.backends.submitting import Result, Submits
from musicgen_lab.clip import Clip, Failure, Samples
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.live.loudness import matched_gain_db
from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import SoundChunk
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.responses import refuse_failure, refuse_unavailable, sound_warnings

PROGRESS_EVERY_S = 0.25
Event = dict[str, Any]


class LiveStreams:
    """The streams of events that are open.

    Parameters
    ----------
    backend : Submits
        Makes the clips.
    admission : Admission
        Limits how many are in flight.
    clips : RecentClips
        Where finished clips go.
    """

    def __init__(self, backend: Submits, admission: Admission, clips: RecentClips) -> None:
        self._backend, self._admission, self._clips = backend, admission, clips
        self._open: dict[str, LiveStream] = {}

    def start(self, requests: Sequence[GenerationRequest]) -> LiveStream:
        """Submit resolved requests, all of them or none.

        Raises
        ------
        Refusal
            429 or 503.
        """
        stream = LiveStream(self._backend, self._clips, on_close=self._open.pop)
        try:
            for request in requests:
                stream.add(request, self._admission)
        except BaseException as error:
            stream.close()
            if isinstance(error, BackendUnavailable):
                raise refuse_unavailable(error) from error
            raise
        self._open[stream.id] = stream
        return stream

    def cancel(self, stream: str, cell: int) -> None:
        """Cancel a clip; nothing happens if it has ended."""
        if stream in self._open:
            self._open[stream].cancel(cell)


class LiveStream:
    """The clips of one response, and their events.

    Parameters
    ----------
    backend : Submits
    clips : RecentClips
    on_close : callable
        Called with `id` and None when the stream is closed.

    Attributes
    ----------
    id : str
        For `LiveStreams.cancel`.
    """

    def __init__(
        self, backend: Submits, clips: RecentClips, on_close: Callable[[str, None], Any]
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self._backend, self._clips, self._on_close = backend, clips, on_close
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, SoundChunk | Future[Result]]] = asyncio.Queue()
        self._requests: list[GenerationRequest] = []
        self._futures: dict[int, Future[Result]] = {}  # of the cells that have not ended
        self._sent: list[int] = []  # samples per channel of each clip
        self._steps: list[tuple[int, int] | None] = []  # as last reported

    def add(self, request: GenerationRequest, admission: Admission) -> None:
        """Submit a resolved request as the next cell.

        Raises
        ------
        BackendUnavailable
        """
        cell = len(self._requests)

        def put(item: SoundChunk | Future[Result]) -> None:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (cell, item))

        future = admission.submit(request, put)
        self._requests.append(request)
        self._futures[cell] = future
        self._sent.append(0)
        self._steps.append(None)
        future.add_done_callback(put)

    def cancel(self, cell: int) -> None:
        """Cancel a clip, which frees its slot; nothing happens if it has ended."""
        if cell in self._futures:
            self._futures[cell].cancel()

    def close(self) -> None:
        """Cancel all clips that have not ended."""
        self._on_close(self.id, None)
        for future in list(self._futures.values()):
            future.cancel()

    async def lines(self) -> AsyncIterator[str]:
        """Yield the events of all cells, a line of JSON each."""
        async for event in self.events():
            yield f"{json.dumps(event, allow_nan=False)}\n"

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of all cells until each has ended.

        One of type "stream" with the stream's `id`; for every cell "started" with its resolved
        request, "progress", "sound" with 16-bit samples, and "clip" or "failed"; then "end".
        """
        yield {"type": "stream", "id": self.id}
        for cell, request in enumerate(self._requests):
            yield {"type": "started", "cell": cell, "request": request.model_dump(mode="json")}
        while self._futures:
            try:
                cell, item = await asyncio.wait_for(self._events.get(), PROGRESS_EVERY_S)
            except TimeoutError:
                for event in self._progress():
                    yield event
                continue
            if isinstance(item, SoundChunk):
                yield self._sound(cell, item.samples, item.sample_rate, item.total_samples)
                self._steps[cell] = (item.steps_done, item.steps)
                yield self._progress_of(cell)
                continue
            del self._futures[cell]
            for event in await self._ended(cell, item):
                yield event
        yield {"type": "end"}

    def _progress(self) -> Iterator[Event]:
        """Yield the progress of the cells in which there is some."""
        for cell, future in self._futures.items():
            steps = None if future.done() else self._backend.progress(future)
            if steps is not None and steps[0] and steps != self._steps[cell]:
                self._steps[cell] = steps
                yield self._progress_of(cell)

    def _progress_of(self, cell: int) -> Event:
        steps_done, steps = self._steps[cell] or (0, 0)
        return {"type": "progress", "cell": cell, "steps_done": steps_done, "steps": steps}

    def _sound(self, cell: int, samples: Samples, sample_rate: int, frames: int) -> Event:
        """Return the next samples of a cell as 16-bit integers, channels interleaved."""
        self._sent[cell] += samples.shape[1]
        full_scale = np.round(np.clip(samples.T, -1.0, 1.0) * 32767).astype("<i2")
        return {
            "type": "sound",
            "cell": cell,
            "sample_rate": sample_rate,
            "channels": samples.shape[0],
            "frames": frames,
            "pcm": base64.b64encode(full_scale.tobytes()).decode("ascii"),
        }

    async def _ended(self, cell: int, future: Future[Result]) -> list[Event]:
        failed: Event = {"type": "failed", "cell": cell}
        try:
            result = future.result()
        except CancelledError:
            return [failed | {"detail": "stopped"}]
        except BackendUnavailable as error:
            return [failed | {"detail": str(error)}]
        if isinstance(result, Failure):
            return [failed | {"detail": refuse_failure(result).detail}]
        self._clips.add(result)
        rest = result.samples[:, self._sent[cell] :]
        sound = self._sound(cell, rest, result.sample_rate, result.samples.shape[1])
        return [sound, await asyncio.to_thread(self._clip, cell, result)]

    def _clip(self, cell: int, clip: Clip) -> Event:
        return {
            "type": "clip",
            "cell": cell,
            "warnings": sound_warnings(clip, "audio/wav", "PCM_16"),
            "elapsed_s": round(clip.elapsed_s, 3),
            "matched_gain_db": matched_gain_db(clip),
        }
