"""`serve`: the web app on this machine, which SIGTERM or Ctrl-C end without losing a response."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI

from musicgen_lab.backends.api_key import API_KEY, is_loopback
from musicgen_lab.backends.submitting import Closing, EngineLost, Submits
from musicgen_lab.errors import BackendUnavailable, MusicGenLabWarning
from musicgen_lab.web.app import create_app
from musicgen_lab.web.connections import LimitedConnection
from musicgen_lab.web.settings import WebSettings

ANSWER_S = 5  # for writing the last responses, after the backend was closed
IDLE_CONNECTIONS_MAX = 128  # in addition to one for every request that may be in flight
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    backend: Submits,
    listening: socket.socket,
    *,
    settings: WebSettings | None = None,
    extend: Callable[[FastAPI], None] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    After that no request is accepted; running ones finish within `settings.drain_s` seconds or are
    answered 503. SIGTERM then ends the process with status 0, or with 1 if the engine's device was
    lost, so that a supervisor can restart it. On a loopback address, the Host header must name that
    address; on any other address, a missing key causes a warning.

    Parameters
    ----------
    backend : Submits
        Makes the clips.
    listening : socket.socket
        As `listening_socket` returns it; its address is printed.
    settings : WebSettings, optional
    extend : callable, optional
        Adds pages to the app.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = settings or WebSettings.from_environment()
    host, port, *_ = listening.getsockname()
    if is_loopback(host):
        chosen = replace(chosen, hosts=tuple(dict.fromkeys((*LOOPBACK, host))))
    elif chosen.api_key is None:
        warnings.warn(
            f"anyone who can reach {host} can use this service: set {API_KEY} to a key that "
            "clients must send, or leave --host out to serve this machine alone",
            MusicGenLabWarning,
            stacklevel=2,
        )
    app = create_app(backend, settings=chosen)
    if extend is not None:
        extend(app)
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="none",
        access_log=False,
        log_level="error",
        limit_concurrency=backend.max_clips + chosen.waiting_max + IDLE_CONNECTIONS_MAX,
        timeout_graceful_shutdown=int(chosen.drain_s) + ANSWER_S,
        server_header=False,
    )

    def end(*_: Any) -> None:  # uvicorn raises the signal again when it has finished
        try:
            backend.check()
        except EngineLost as error:
            sys.exit(f"error: {error}")
        except Closing:
            pass
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    address = f"[{host}]" if ":" in host else host
    print(f"serving {backend.name} at http://{address}:{port}", flush=True)
    _Server(config, chosen.drain_s).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which closes the backend while it waits for running requests."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let running requests finish or fail, and end."""
        backend: Submits = self.config.app.state.backend  # type: ignore[union-attr]
        closing = asyncio.ensure_future(asyncio.to_thread(backend.close, self._drain_s))
        await super().shutdown(sockets)
        await closing


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket on which connections wait from now on.

    Parameters
    ----------
    host : str
        Address to listen on; 127.0.0.1 is reachable from this machine only.
    port : int
        0 takes a free one.

    Raises
    ------
    BackendUnavailable
        When there is no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise BackendUnavailable(
            f"cannot listen on {host}:{port} ({error.strerror}); name another with {option}"
        ) from error
    return listening
