"""Clips that are answered while they are made: a sound file in parts, or server-sent events."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np
import soundfile
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from musicgen_lab.backends.jobs import JobStatus
from musicgen_lab.backends.submitting import Closing, Result, clip_of, last_chunk
from musicgen_lab.clip import Failure, encode_wav, wav_header, wav_samples
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import ClipFailed, SoundChunk
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.request_log import describe_error
from musicgen_lab.web.responses import (
    EVENTS,
    Refusal,
    SampleFormat,
    clip_body,
    refuse_failure,
    refuse_unavailable,
    sound_headers,
)
from musicgen_lab.web.settings import WebSettings
from musicgen_lab.web.waiting import in_time

Event: TypeAlias = "SoundChunk | Future[Result]"

STREAMED = {"audio/wav": "WAV", "audio/x-wav": "WAV", "audio/ogg": "OGG", EVENTS: ""}
"""The media types in which a clip can be streamed; of equals, the first is chosen.

The headers of MP3 and FLAC files are written when the whole sound is known.
"""

JOB_POLL_S = 0.5
NO_BUFFERING = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # by caches and nginx


class ChunkEncoder(Protocol):
    """Turns the chunks of a clip into the bytes of one file."""

    def encode(self, chunk: SoundChunk) -> bytes:
        """Return the file's next bytes."""


class WavEncoder:
    """A WAV file whose header states the length of the whole clip."""

    def __init__(self, first: SoundChunk, sample_format: SampleFormat) -> None:
        self._format: SampleFormat = sample_format
        channels = first.samples.shape[0]
        self._header = wav_header(channels, first.sample_rate, first.total_samples, sample_format)

    def encode(self, chunk: SoundChunk) -> bytes:
        """Return the next samples, after the header the first time."""
        header, self._header = self._header, b""
        return header + wav_samples(chunk.samples, self._format)


class OggEncoder:
    """An Ogg Vorbis file, whose pages are complete after some tenths of a second each."""

    def __init__(self, first: SoundChunk) -> None:
        self._buffer = io.BytesIO()
        kind = {"samplerate": first.sample_rate, "channels": first.samples.shape[0]}
        self._file = soundfile.SoundFile(self._buffer, "w", format="OGG", **kind)
        self._sent = 0

    def encode(self, chunk: SoundChunk) -> bytes:
        """Return the pages that a chunk completes; all that are left with the last one."""
        playable = np.clip(chunk.samples.T, -1.0, 1.0)
        for start in range(0, len(playable), chunk.sample_rate):  # as in `responses.encode`
            self._file.write(playable[start : start + chunk.sample_rate])
        if chunk.clip is not None:
            self._file.close()
        pages = self._buffer.getvalue()[self._sent :]
        self._sent += len(pages)
        return pages


class Streamed(StreamingResponse):
    """A response that is sent while it is made, and then calls `on_end`, however it ends."""

    def __init__(
        self,
        content: AsyncIterator[str | bytes],
        on_end: Callable[[], object],
        media_type: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(content, media_type=media_type, headers={**NO_BUFFERING, **headers})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def stream_clip(
    wanted: GenerationRequest,
    admission: Admission,
    request: Request,
    settings: WebSettings,
    *,
    media_type: str,
    sample_format: SampleFormat,
    warnings: Sequence[str],
) -> Streamed:
    """Return a response that sends a clip while it is made; its first chunk is there already.

    A clip that fails before its first chunk is refused like one that is not streamed. If it fails
    later, a sound file ends in the middle, and its connection is closed without the chunk that
    completes a chunked response; events end with "failed".

    Parameters
    ----------
    wanted : GenerationRequest
        Resolved.
    admission, request, settings
        As for a clip that is not streamed.
    media_type : str
        One of `STREAMED`.
    sample_format : {"PCM_16", "FLOAT"}
    warnings : sequence of str
        Fields that were sent and have no effect.

    Raises
    ------
    Refusal
    """
    loop, unsent = asyncio.get_running_loop(), UnsentSound()

    def put(event: Event) -> None:
        loop.call_soon_threadsafe(unsent.take, event)

    deadline_s = loop.time() + settings.timeout_s
    try:
        making = admission.submit(wanted, put)
    except BackendUnavailable as error:
        raise refuse_unavailable(error) from error
    making.add_done_callback(put)
    chunks = unsent.chunks()
    waiting = asyncio.ensure_future(anext(chunks))
    try:
        first = await in_time(waiting, request, settings)
        if isinstance(first, Failure):
            raise refuse_failure(first)
    except BaseException as error:
        waiting.cancel()
        making.cancel()
        if isinstance(error, BackendUnavailable):
            raise refuse_unavailable(error) from error
        raise
    log = request.state.log
    message = f"the clip was not finished within {settings.timeout_s:g} s"
    all_chunks = _until(deadline_s, Failure(wanted, "Timeout", message), first, chunks, log)
    if media_type == EVENTS:
        content = _events(all_chunks, sample_format, warnings, log)
    else:
        content = _sound(all_chunks, _encoder(first, media_type, sample_format))
    duration_s = first.total_samples / first.sample_rate
    headers = sound_headers(wanted, duration_s, warnings)
    return Streamed(content, making.cancel, media_type, headers)


class UnsentSound:
    """The sound of a clip that its client has not taken yet.

    For a client that reads slowly it is in memory once: as long as the clip is being made, in the
    chunks in which it comes, and then as the clip.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._sent = self._steps = 0

    def take(self, event: Event) -> None:
        """Take in the next chunk, or the end."""
        if isinstance(event, SoundChunk):
            self._steps = event.steps
        elif clip_of(event) is not None:
            while not self._events.empty():
                self._events.get_nowait()
        self._events.put_nowait(event)

    async def chunks(self) -> AsyncIterator[SoundChunk | Failure]:
        """Yield the chunks; the last one has the clip, or is a failure.

        Raises
        ------
        BackendUnavailable
            When the backend gives the clip up.
        """
        while isinstance(event := await self._events.get(), SoundChunk):
            self._sent += event.samples.shape[1]
            yield event
        try:
            result = event.result()
        except FutureCancelled:  # by the backend
            raise Closing("the service is shutting down") from None
        if isinstance(result, Failure):
            yield result
            return
        rest = last_chunk(result, sent=self._sent, steps=self._steps)
        second = rest.sample_rate
        while rest.samples.shape[1] > second:
            yield replace(rest, samples=rest.samples[:, :second], clip=None)
            rest = replace(rest, samples=rest.samples[:, second:], start_s=rest.start_s + 1)
        yield rest


async def _until(
    deadline_s: float,
    late: Failure,
    first: SoundChunk,
    others: AsyncIterator[SoundChunk | Failure],
    log: dict[str, Any],
) -> AsyncIterator[SoundChunk]:
    """Yield all chunks, and log the seconds of sound in them.

    Raises
    ------
    ClipFailed
        When the clip fails; with `late` at a time of the event loop's clock.
    BackendUnavailable
        When the backend gives it up.
    """
    chunk: SoundChunk | Failure = first
    while isinstance(chunk, SoundChunk):
        yield chunk
        end_s = chunk.start_s + chunk.samples.shape[1] / chunk.sample_rate
        log["streamed_s"] = round(end_s, 6)
        if chunk.clip is not None:
            return
        try:
            async with asyncio.timeout_at(deadline_s):
                chunk = await anext(others)
        except TimeoutError:
            chunk = late
    raise ClipFailed(chunk)


def _encoder(first: SoundChunk, media_type: str, sample_format: SampleFormat) -> ChunkEncoder:
    if STREAMED[media_type] == "OGG":
        return OggEncoder(first)
    return WavEncoder(first, sample_format)


async def _sound(chunks: AsyncIterator[SoundChunk], encoder: ChunkEncoder) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        part = await asyncio.to_thread(encoder.encode, chunk)
        if part:  # an empty part would end the response
            yield part


async def _events(
    chunks: AsyncIterator[SoundChunk],
    sample_format: SampleFormat,
    warnings: Sequence[str],
    log: dict[str, Any],
) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield await asyncio.to_thread(_sound_event, chunk, sample_format)
            if chunk.clip is not None:
                body = await asyncio.to_thread(clip_body, chunk.clip, sample_format, warnings)
                yield encode_event("done", body)
    except (ClipFailed, BackendUnavailable) as error:
        if isinstance(error, ClipFailed):
            refusal = refuse_failure(error.failure)
        else:
            refusal = refuse_unavailable(error)
        log |= {"detail": refusal.detail, **describe_error(refusal.failure, error)}
        fields = {"error_type": type(error).__name__, **refusal.fields}
        yield encode_event("failed", {"detail": refusal.detail, **fields})


def _sound_event(chunk: SoundChunk, sample_format: SampleFormat) -> bytes:
    wav = encode_wav(chunk.samples, chunk.sample_rate, sample_format)
    body = {
        "audio_base64": base64.b64encode(wav).decode("ascii"),
        "sample_rate": chunk.sample_rate,
        "start_s": chunk.start_s,
        "steps_done": chunk.steps_done,
        "steps": chunk.steps,
        "total_samples": chunk.total_samples,
    }
    return encode_event("sound", body)


def encode_event(name: str, body: Mapping[str, Any]) -> bytes:
    """Return a server-sent event whose data is JSON in ASCII."""
    return f"event: {name}\ndata: {json.dumps(body, allow_nan=False)}\n\n".encode("ascii")


async def job_events(
    status: JobStatus,
    look: Callable[[], Awaitable[JobStatus]],
    describe: Callable[[JobStatus], dict[str, Any]],
) -> AsyncIterator[bytes]:
    """Yield the states of a job as events, whenever it has changed, until it has ended.

    Parameters
    ----------
    status : JobStatus
        The present one.
    look : async callable
        Returns a later one.
    describe : callable
        Returns an event's data.

    A job that cannot be looked at for now (503) is looked at again; one that cannot be at all ends
    the events with one of the name "failed".
    """
    shown: tuple[str, int | None] | None = None
    while True:
        running = status.state in ("queued", "running")
        if shown != (status.state, status.steps_done):
            shown = (status.state, status.steps_done)
            body = await asyncio.to_thread(describe, status)
            yield encode_event("progress" if running else status.state, body)
        if not running:
            return
        await asyncio.sleep(JOB_POLL_S)
        try:
            status = await look()
        except Refusal as refusal:
            if refusal.status == 503:
                continue
            yield encode_event("failed", {"detail": refusal.detail, **refusal.fields})
            return
