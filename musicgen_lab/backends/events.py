"""Server-sent events, such as those of a service that streams a clip, read within limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

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
                try:
                    data = json.loads(fields["data"])
                except RecursionError:
                    raise ValueError("the data of an event is nested too deeply") from None
                if not isinstance(data, dict):
                    raise ValueError("the data of an event is not an object")
                yield fields.get("event", ""), data
        if len(buffer) > max_bytes:
            raise ValueError(f"an event has more than {max_bytes:,} bytes")
