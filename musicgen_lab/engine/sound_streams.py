"""`SoundStreams`: the sound of running clips, decoded and handed out while they are made."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from musicgen_lab.engine.clip_state import ClipState, shared_time
from musicgen_lab.engine.codec import Codec, Decoding, attempt
from musicgen_lab.engine.decode_state import DecodeState
from musicgen_lab.streaming import OnChunk, SoundChunk

CHUNK_S = 0.2  # the shortest chunk, and so the first
AHEAD_S = 1.0  # of sound handed out that is not played yet: with more, decoding waits


@dataclass(eq=False)
class _Stream:
    on_chunk: OnChunk
    decoding: Decoding | None = None
    first_s: float | None = None  # when the first chunk was handed out, by the monotonic clock

    def ahead_s(self, handed_out_s: float) -> float:
        """Return the seconds of sound that a listener since the first chunk has left to play."""
        played_s = 0.0 if self.first_s is None else time.monotonic() - self.first_s
        return handed_out_s - played_s


@dataclass(eq=False)
class _Part:
    """What is to be decoded of a clip."""

    clip: ClipState
    stream: _Stream
    decoding: Decoding
    codes: Tensor  # (K, n)


@dataclass(eq=False)
class SoundStreams:
    """The clips whose sound is handed out while they are made.

    A chunk is decoded when a listener, who plays since the first one, has less than `AHEAD_S` left:
    then everything that is complete, at least `CHUNK_S` of it. So an engine that is barely faster
    than the music hands out short chunks and a fast one long ones, decoding no more often than
    needed.

    Parameters
    ----------
    codec : Codec
    state : DecodeState
        Has the codes.

    Attributes
    ----------
    adding : threading.Lock
        To hold while a request is queued and its stream is added, so that none is added after its
        clip has ended.
    """

    codec: Codec
    state: DecodeState
    adding: threading.Lock = field(default_factory=threading.Lock)
    _streams: dict[int, _Stream] = field(default_factory=dict)  # by request id

    def add(self, request_id: int, on_chunk: OnChunk) -> None:
        """Hand out the sound of a request, from any thread."""
        self._streams[request_id] = _Stream(on_chunk)

    def __contains__(self, request_id: object) -> bool:
        """Return whether the sound of a request is handed out."""
        return request_id in self._streams

    def remove(self, request_ids: Iterable[int]) -> None:
        """Forget requests that have ended."""
        with self.adding:
            for request_id in request_ids:
                self._streams.pop(request_id, None)

    def hand_out(self, running: Sequence[ClipState]) -> None:
        """Decode and hand out what is due of the running clips."""
        due: list[_Part] = []
        for clip in running:
            stream = self._streams.get(clip.request_id)
            if stream is not None:
                with self._removed_on_error(clip):
                    due += self._due(clip, stream)
        if not due:
            return
        starts = [part.decoding.decoded for part in due]
        with shared_time([part.clip for part in due]):
            sounds = self._decode(due)
        for part, start, sound in zip(due, starts, sounds, strict=True):
            with self._removed_on_error(part.clip):
                if isinstance(sound, Exception):
                    raise sound
                self._hand_on(part, start, sound)

    @contextmanager
    def _removed_on_error(self, clip: ClipState) -> Iterator[None]:
        """End a clip's stream at an error; the clip is decoded whole in the end, or fails then."""
        try:
            yield
        except Exception:
            self.remove([clip.request_id])

    def _due(self, clip: ClipState, stream: _Stream) -> list[_Part]:
        """Return what completes a chunk, if one is due; nothing if none is."""
        if stream.decoding is None:
            stream.decoding = self.codec.start(clip.frames)
        decoding, frames = stream.decoding, self.state.complete_frames(clip)
        if decoding.decoded == clip.frames:  # which waits to be decoded whole
            return []
        if frames < clip.frames:
            rate = self.codec.frame_rate
            new_s = (self.codec.decodable(decoding, frames) - decoding.decoded) / rate
            handed_out_s = (decoding.decoded - clip.first_frame) / rate
            if new_s < CHUNK_S or stream.ahead_s(handed_out_s) >= AHEAD_S:
                return []
        return [_Part(clip, stream, decoding, self.state.codes(clip, decoding.read, frames))]

    def _decode(self, due: Sequence[_Part]) -> list[Tensor] | list[Tensor | Exception]:
        """Decode the parts together; one by one if that fails, so that only some are lost."""
        before = [part.decoding.copy() for part in due]
        with suppress(Exception):
            return self.codec.decode_parts([(part.decoding, part.codes) for part in due])
        for part, decoding in zip(due, before, strict=True):
            part.stream.decoding = part.decoding = decoding
        return [
            attempt(partial(self.codec.decode_parts, [(part.decoding, part.codes)])) for part in due
        ]

    def _hand_on(self, part: _Part, start: int, sound: Tensor) -> None:
        """Hand on the (channels, n) samples of a clip from the frame `start`."""
        clip, stream = part.clip, part.stream
        if not torch.isfinite(sound).all():
            self.remove([clip.request_id])  # the clip fails in the end
            return
        missing = max(clip.first_frame - start, 0)  # frames that are decoded, but not wanted
        samples = sound[:, missing * self.codec.samples_per_frame :]
        if not samples.shape[1]:
            return
        chunk = SoundChunk(
            samples=samples.numpy(),
            sample_rate=self.codec.sample_rate,
            start_s=(start + missing - clip.first_frame) / self.codec.frame_rate,
            steps_done=clip.steps_done,
            steps=clip.steps,
            total_samples=(clip.frames - clip.first_frame) * self.codec.samples_per_frame,
        )
        if stream.first_s is None:
            stream.first_s = time.monotonic()
        stream.on_chunk(chunk)
