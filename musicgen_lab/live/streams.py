"""`LiveStreams`: many clips in one response, as events while they are made."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from musicgen_lab.backends.submitting import Busy, Result, Submits, clip_of
from musicgen_lab.clip import Clip, Failure, Samples
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.live.loudness import matched_gain_db
from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import SoundChunk
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.request_log import describe_error
from musicgen_lab.web.responses import refuse_failure, refuse_unavailable, sound_warnings

PROGRESS_EVERY_S = 0.25
PART_S = 0.5  # of sound in one event: on a slow network, no cell makes the others wait for long
UNSENT_MAX_BYTES = 512 * 1024 * 1024
Event = dict[str, Any]


@dataclass(eq=False)
class LiveCell:
    """A clip of a stream, and what of it was sent.

    Attributes
    ----------
    number : int
        Its place in the request.
    request : GenerationRequest
    future : Future of Clip or Failure
    unsent : deque of np.ndarray [shape=(channels, n)]
        The sound that is there and was not sent yet.
    sample_rate, frames : int
        Of the whole clip; 0 before the first sound.
    sent : int
        Samples per channel.
    steps, steps_sent : tuple of int and int
        The steps done and those of the whole clip: now, and as last sent.
    is_queued : bool
        Whether it waits for its turn to be sent.
    is_finished : bool
        Whether the end of `future` was taken in, a moment after `future` is done.
    """

    number: int
    request: GenerationRequest
    future: Future[Result]
    unsent: deque[Samples] = field(default_factory=deque)
    sample_rate: int = 0
    frames: int = 0
    sent: int = 0
    steps: tuple[int, int] = (0, 0)
    steps_sent: tuple[int, int] = (0, 0)
    is_queued: bool = False
    is_finished: bool = False

    @property
    def unsent_bytes(self) -> int:
        """Bytes of sound that wait to be sent."""
        return sum(samples.nbytes for samples in self.unsent)

    def take(self, chunk: SoundChunk) -> None:
        """Take in the next part of the sound."""
        self.sample_rate, self.frames = chunk.sample_rate, chunk.total_samples
        self.steps = chunk.steps_done, chunk.steps
        self.unsent.append(chunk.samples)

    def finish(self, clip: Clip) -> None:
        """Take in the clip: what was not sent yet is sent from it, and is not there twice."""
        self.sample_rate, self.frames = clip.sample_rate, clip.samples.shape[1]
        self.unsent = deque([clip.samples[:, self.sent :]])

    def next_sound(self) -> Event | None:
        """Return an event with at most `PART_S` of sound not sent yet; None if there is none.

        The samples are 16-bit integers, channels interleaved.
        """
        if not self.unsent:
            return None
        samples, length = self.unsent.popleft(), round(PART_S * self.sample_rate)
        if samples.shape[1] > length:
            self.unsent.appendleft(samples[:, length:])
            samples = samples[:, :length]
        self.sent += samples.shape[1]
        full_scale = np.round(np.clip(samples.T, -1.0, 1.0) * 32767).astype("<i2")
        return {
            "type": "sound",
            "cell": self.number,
            "sample_rate": self.sample_rate,
            "channels": samples.shape[0],
            "frames": self.frames,
            "pcm": base64.b64encode(full_scale.tobytes()).decode("ascii"),
        }

    def next_progress(self) -> Event | None:
        """Return an event with the steps done; None if they are as last sent."""
        if self.steps == self.steps_sent:
            return None
        self.steps_sent = self.steps
        done, steps = self.steps
        return {"type": "progress", "cell": self.number, "steps_done": done, "steps": steps}

    def failed(self, detail: str) -> Event:
        """Return the event that ends it without a clip."""
        return {"type": "failed", "cell": self.number, "detail": detail}

    def ended(self, clip: Clip) -> Event:
        """Return the event that ends it with its clip."""
        return {
            "type": "clip",
            "cell": self.number,
            "warnings": sound_warnings(clip, "audio/wav", "PCM_16"),
            "elapsed_s": round(clip.elapsed_s, 3),
            "matched_gain_db": matched_gain_db(clip),
        }


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
    timeout_s : float
        How long a stream waits for a clip to be finished before it gives up those that are not.
    unsent_max_bytes : int
        No stream is opened while as much sound waits to be read by slow clients.
    """

    def __init__(
        self,
        backend: Submits,
        admission: Admission,
        clips: RecentClips,
        *,
        timeout_s: float,
        unsent_max_bytes: int = UNSENT_MAX_BYTES,
    ) -> None:
        self._backend, self._admission, self._clips = backend, admission, clips
        self._timeout_s, self._unsent_max_bytes = timeout_s, unsent_max_bytes
        self._open: dict[str, LiveStream] = {}

    def start(self, requests: Sequence[GenerationRequest], log: dict[str, Any]) -> LiveStream:
        """Submit resolved requests, all of them or none.

        Parameters
        ----------
        requests : sequence of GenerationRequest
        log : dict
            The line in the log, which failures are added to.

        Raises
        ------
        Refusal
            429 or 503.
        """
        unsent_bytes = sum(stream.unsent_bytes for stream in self._open.values())
        if unsent_bytes > self._unsent_max_bytes:
            waiting = f"{unsent_bytes / 1e6:.0f} MB of sound wait to be read by slow clients"
            raise refuse_unavailable(Busy(f"{waiting}, which is the limit; try again later"))
        stream = LiveStream(
            self._backend, self._clips, log, timeout_s=self._timeout_s, on_close=self._open.pop
        )
        self._open[stream.id] = stream
        try:
            for request in requests:
                stream.add(request, self._admission)
        except BaseException as error:
            stream.close()
            if isinstance(error, BackendUnavailable):
                raise refuse_unavailable(error) from error
            raise
        return stream

    def cancel(self, stream: str, cell: int) -> None:
        """Cancel a clip; nothing happens if it has ended."""
        if stream in self._open:
            self._open[stream].cancel(cell)


class LiveStream:
    """The clips of one response, and their events.

    Sound that is not read yet stays here once: while a clip is made, in the parts in which it
    comes, and then as the clip.

    Parameters
    ----------
    backend : Submits
    clips : RecentClips
    log : dict
    timeout_s : float
    on_close : callable
        Called with `id` when the stream is closed.

    Attributes
    ----------
    id : str
        For `LiveStreams.cancel`.
    """

    def __init__(
        self,
        backend: Submits,
        clips: RecentClips,
        log: dict[str, Any],
        *,
        timeout_s: float,
        on_close: Callable[[str], object],
    ) -> None:
        self.id = secrets.token_urlsafe(9)
        self._backend, self._clips, self._log, self._on_close = backend, clips, log, on_close
        self._loop = asyncio.get_running_loop()
        self._cells: dict[int, LiveCell] = {}  # that have not ended
        self._ready: asyncio.Queue[LiveCell] = asyncio.Queue()  # each of them at most once
        self._timeout_s, self._late_at_s = timeout_s, self._loop.time() + timeout_s

    @property
    def unsent_bytes(self) -> int:
        """Bytes of sound that wait to be read."""
        return sum(cell.unsent_bytes for cell in self._cells.values())

    def add(self, request: GenerationRequest, admission: Admission) -> None:
        """Submit a resolved request as the next cell.

        Raises
        ------
        BackendUnavailable
        """
        number = len(self._cells)

        def put(item: SoundChunk | Future[Result]) -> None:
            self._loop.call_soon_threadsafe(self._take, number, item)

        future = admission.submit(request, put)
        self._cells[number] = LiveCell(number, request, future)
        future.add_done_callback(put)

    def cancel(self, number: int) -> None:
        """Cancel a clip, which frees its slot; nothing happens if it has ended."""
        if number in self._cells:
            self._cells[number].future.cancel()

    def close(self) -> None:
        """Cancel all clips that have not ended."""
        self._on_close(self.id)
        cells, self._cells = self._cells, {}
        for cell in cells.values():
            cell.future.cancel()

    async def lines(self) -> AsyncIterator[str]:
        """Yield the events of all cells, a line of JSON each."""
        async for event in self.events():
            yield f"{json.dumps(event, allow_nan=False)}\n"

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of all cells until each has ended.

        One of type "stream" with the stream's `id`; for every cell "started" with its resolved
        request, "progress", "sound", and "clip" or "failed"; then "end".
        """
        yield {"type": "stream", "id": self.id}
        for cell in list(self._cells.values()):
            request = cell.request.model_dump(mode="json")
            yield {"type": "started", "cell": cell.number, "request": request}
        reported_s = self._loop.time()
        while self._cells:
            ready = await self._next_ready()
            if self._loop.time() - reported_s >= PROGRESS_EVERY_S:
                for event in self._progress():
                    yield event
                reported_s = self._loop.time()
            for event in self._late():
                yield event
            if ready is None or ready.number not in self._cells:
                continue
            for event in filter(None, (ready.next_sound(), ready.next_progress())):
                yield event
            if ready.unsent:
                self._ready.put_nowait(ready)  # after the others
            elif ready.is_finished:
                yield await self._end(ready)
            else:
                ready.is_queued = False
        yield {"type": "end"}

    def _take(self, number: int, item: SoundChunk | Future[Result]) -> None:
        """Take in a chunk of a cell, or its end."""
        cell = self._cells.get(number)
        if cell is None:  # given up since
            return
        if isinstance(item, SoundChunk):
            cell.take(item)
        else:
            cell.is_finished = True
            self._late_at_s = self._loop.time() + self._timeout_s
            clip = clip_of(item)
            if clip is not None:
                cell.finish(clip)
                self._clips.add(clip)
        if not cell.is_queued:
            cell.is_queued = True
            self._ready.put_nowait(cell)

    async def _next_ready(self) -> LiveCell | None:
        """Return the cell whose turn it is; None if nothing happens for a moment."""
        try:
            return await asyncio.wait_for(self._ready.get(), PROGRESS_EVERY_S)
        except TimeoutError:
            return None

    def _progress(self) -> list[Event]:
        """Return the progress of the cells in which there is some."""
        for cell in self._cells.values():
            steps = None if cell.future.done() else self._backend.progress(cell.future)
            if steps is not None and steps[0] >= cell.steps[0]:
                cell.steps = steps
        return [event for cell in self._cells.values() if (event := cell.next_progress())]

    def _late(self) -> list[Event]:
        """Give up the clips that are not finished, if none was finished for too long."""
        if self._loop.time() < self._late_at_s:
            return []
        detail = (
            f"no clip was finished within {self._timeout_s:g} s; make fewer or shorter ones, or "
            "try again when the service is less busy"
        )
        late = [cell for cell in self._cells.values() if not cell.future.done()]
        for cell in late:
            del self._cells[cell.number]
            cell.future.cancel()
            self._log_failure(Failure(cell.request, "Timeout", detail), None)
        return [cell.failed(detail) for cell in late]

    async def _end(self, cell: LiveCell) -> Event:
        """Return the last event of a cell."""
        del self._cells[cell.number]
        try:
            result = cell.future.result()
        except CancelledError:
            return cell.failed("stopped")
        except BackendUnavailable as error:
            self._log_failure(None, error)
            return cell.failed(str(error))
        if isinstance(result, Failure):
            self._log_failure(result, None)
            return cell.failed(refuse_failure(result).detail)
        return await asyncio.to_thread(cell.ended, result)

    def _log_failure(self, failure: Failure | None, error: BackendUnavailable | None) -> None:
        """Add a failure to the line in the log: how many there are, and the last one."""
        self._log |= {"failed": self._log.get("failed", 0) + 1, **describe_error(failure, error)}
