"""`WebSettings`: the web app's configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from musicgen_lab.backends.api_key import read_api_key
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.limits import DURATION_MAX_S, DURATION_MIN_S, WINDOW_S

ALLOWED_ORIGINS, DURATION_MAX = "MUSICGEN_ALLOWED_ORIGINS", "MUSICGEN_DURATION_MAX"
KIB = 1024  # bytes


@dataclass(frozen=True)
class WebSettings:
    """Limits of the web app.

    Attributes
    ----------
    api_key : str or None
        What clients must send as `Authorization: Bearer …`; None for no check.
    public : bool
        Whether the app is reachable from elsewhere: without a key, `deep` is then rejected.
    hosts : tuple of str
        Allowed values of the Host header; empty for any.
    allowed_origins : tuple of str
        Origins whose pages may call the service from a browser, such as "https://example.org".
    timeout_s : float
        How long a clip may take, waiting included, before the answer is 504.
    answer_within_s : float or None
        How long a client may wait before it is answered 503 and asked to send
        `Prefer: respond-async`; None if nothing between client and app ends long calls.
    read_timeout_s : float
        How long a client may take to send the head of a request, and then its body.
    body_max_bytes : int
        Larger bodies are answered 413.
    source_timeout_s : float
        How long a client may take to send a sound to begin with.
    source_max_bytes : int
        Larger ones are answered 413.
    duration_max_s : float
        The longest clip that clients may ask for, in seconds; at most 300.
    waiting_max : int
        Requests that may wait beyond those being made before the answer is 429.
    jobs_kept_s : float
        How long the result of a job is kept.
    jobs_kept_max : int
        How many results are kept at most.
    drain_s : float
        How long running requests may take to finish after SIGTERM.
    """

    api_key: str | None = field(default=None, repr=False)
    public: bool = False
    hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    timeout_s: float = 600.0
    answer_within_s: float | None = None
    read_timeout_s: float = 20.0
    body_max_bytes: int = 64 * KIB
    source_timeout_s: float = 120.0
    source_max_bytes: int = 25 * KIB**2
    duration_max_s: float = WINDOW_S
    waiting_max: int = 256
    jobs_kept_s: float = 3600.0
    jobs_kept_max: int = 64
    drain_s: float = 30.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WebSettings:
        """Read the key, the allowed origins and the longest clip from the environment.

        The key is in MUSICGEN_API_KEY, or in the file that MUSICGEN_API_KEY_FILE names, so that
        it is in no command line; MUSICGEN_ALLOWED_ORIGINS is separated by commas;
        MUSICGEN_DURATION_MAX is in seconds.

        Raises
        ------
        InvalidRequest
            When one of them is invalid.
        """
        return cls(
            api_key=read_api_key(environment),
            allowed_origins=read_origins(environment),
            duration_max_s=read_duration_max(environment),
        )


def read_duration_max(environment: Mapping[str, str] = os.environ) -> float:
    """Return the longest clip in seconds, from MUSICGEN_DURATION_MAX.

    Raises
    ------
    InvalidRequest
        When it is no length that clips can have.
    """
    text = environment.get(DURATION_MAX, f"{WINDOW_S:g}")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not DURATION_MIN_S <= seconds <= DURATION_MAX_S:
        raise InvalidRequest(
            f"{DURATION_MAX} must be a number from {DURATION_MIN_S:g} to {DURATION_MAX_S:g} "
            f"seconds, got {text!r}"
        )
    return seconds


def read_origins(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the comma-separated origins in MUSICGEN_ALLOWED_ORIGINS.

    Raises
    ------
    InvalidRequest
        When one is more or less than a scheme and a host.
    """
    names = environment.get(ALLOWED_ORIGINS, "").split(",")
    origins = tuple(name.strip() for name in names if name.strip())
    for origin in origins:
        try:
            scheme, host, *_ = urlsplit(origin)
        except ValueError:  # such as of an IPv6 address without its end
            scheme, host = "", ""
        if scheme not in ("http", "https") or origin != f"{scheme}://{host}":
            raise InvalidRequest(
                f"{ALLOWED_ORIGINS} must name origins such as https://example.org, separated by "
                f"commas, got {origin!r}"
            )
    return origins
