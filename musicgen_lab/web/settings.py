"""`WebSettings`: what the web app is told when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

API_KEY = "MUSICGEN_API_KEY"
KIB = 1024  # bytes


@dataclass(frozen=True)
class WebSettings:
    """Limits of the web app.

    Attributes
    ----------
    api_key : str or None
        What clients must send as `Authorization: Bearer …`; None lets everybody in.
    timeout_s : float
        How long a clip may take, waiting included, before the answer is 504.
    body_max_bytes : int
        Larger bodies are answered 413.
    waiting_max : int
        Requests that may wait beyond those being made before the answer is 429.
    drain_s : float
        How long running requests may take to finish after SIGTERM.
    """

    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    body_max_bytes: int = 64 * KIB
    waiting_max: int = 256
    drain_s: float = 30.0

    @classmethod
    def from_environment(cls) -> WebSettings:
        """Take the key from MUSICGEN_API_KEY, so that it is in no command line."""
        return cls(api_key=os.environ.get(API_KEY) or None)
