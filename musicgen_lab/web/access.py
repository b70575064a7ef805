"""Access control of the web app: the API key, and the names in the Host header."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from musicgen_lab.backends.submitting import RETRY_AFTER_S
from musicgen_lab.web.responses import Refusal
from musicgen_lab.web.settings import WebSettings

SURPLUS = "surplus_connection"  # in the state of a request's scope, where the server has set it


def check_key(request: Request, settings: WebSettings) -> None:
    """Reject a request without the key, if one is set, comparing in constant time.

    Raises
    ------
    Refusal
        401.
    """
    if settings.api_key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Header values arrive as latin-1, whatever bytes the client sent.
    same = hmac.compare_digest(given.strip().encode("latin-1"), settings.api_key.encode())
    if scheme.lower() != "bearer" or not same:
        raise Refusal(
            401,
            "this service needs its key: send the header Authorization: Bearer <key>",
            {"WWW-Authenticate": "Bearer"},
        )


def check_may_wake(request: Request, settings: WebSettings) -> None:
    """Reject clients without the key where the request may start a GPU.

    Raises
    ------
    Refusal
        401 without the key, or 403 if no key is set and the app is public.
    """
    check_key(request, settings)
    if settings.public and settings.api_key is None:
        raise Refusal(
            403,
            "deep may start a GPU, and this service is public: its owner must set a key first; "
            "leave deep out",
        )


class HostCheck:
    """ASGI middleware that rejects requests whose Host header does not name this server.

    This prevents DNS rebinding, with which a web page makes its own host name resolve to this
    machine, so that a browser takes the service for the same origin.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its Host header names one of the hosts."""
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            try:
                name = urlsplit(f"//{host}").hostname
            except ValueError:
                name = None
            if name not in self._hosts:
                allowed = ", ".join(self._hosts)
                raise Refusal(421, f"Host must be one of {allowed}, got {host[:200]!r}")
        await self._app(scope, receive, send)


class SurplusCheck:
    """ASGI middleware that rejects requests on surplus connections, and closes these."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it.

        Raises
        ------
        Refusal
            503.
        """
        if scope.get("state", {}).get(SURPLUS):
            headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
            detail = "too many connections are open; send the request again in a moment"
            raise Refusal(503, detail, headers)
        await self._app(scope, receive, send)
