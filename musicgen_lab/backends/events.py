"""The events of a service that streams a clip: read within limits, and checked."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import soundfile

from musicgen_lab.clip import decode_audio, shape_fault
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import SoundChunk

END = b"\n\n"  # of an event


async def read_events(
    parts: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the data of server-sent events whose data is JSON.

    Parameters
    ----------
    parts : async iterator of bytes
        Of the body, cut anywhere.
    max_bytes : int
        Of one event.

    Raises
    ------
    ValueError
        When an event is longer, or not of this kind.
    """
    buffer = bytearray()
    async for part in parts:
        searched = max(len(buffer) - 1, 0)
        buffer += part
        while (end := buffer.find(END, searched)) >= 0:
            lines = buffer[:end].decode().split("\n")
            del buffer[: end + len(END)]
            searched = 0
            fields = dict(line.partition(": ")[::2] for line in lines)
            if "data" in fields:  # others are comments, which keep a connection alive
                data = json.loads(fields["data"])
                if not isinstance(data, dict):
                    raise ValueError("the data of an event is not an object")
                yield fields.get("event", ""), data
        if len(buffer) > max_bytes:
            raise ValueError(f"an event has more than {max_bytes:,} bytes")


def read_chunk(body: dict[str, Any], request: GenerationRequest, sent: int) -> SoundChunk:
    """Return the chunk in the data of an event.

    Parameters
    ----------
    body : dict
        From a service, which is not trusted.
    request : GenerationRequest
        Resolved.
    sent : int
        Samples per channel in the chunks before it.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it cannot be the next part of the request's clip.
    """
    wav = base64.b64decode(body["audio_base64"])
    try:
        info = soundfile.info(io.BytesIO(wav))  # before anything is decoded: it may claim any size
    except soundfile.LibsndfileError as error:
        raise ValueError(str(error)) from None
    total, steps_done, steps = (
        int(body[name]) for name in ("total_samples", "steps_done", "steps")
    )
    fault = shape_fault(request, info.channels, total, info.samplerate)
    if fault is not None:
        raise ValueError(fault)
    if sent + info.frames > total or not 0 <= steps_done <= steps:
        raise ValueError("it has more than the whole clip")
    samples, sample_rate = decode_audio(wav)
    if not np.isfinite(samples).all():
        raise ValueError("its samples are not all finite numbers")
    return SoundChunk(samples, sample_rate, sent / sample_rate, steps_done, steps, total)
