"""`serve`: the web app on this machine, ended by SIGTERM or Ctrl-C without losing an answer."""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from musicgen_lab.backends.submitting import Submits
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.web.app import create_app
from musicgen_lab.web.settings import WebSettings

ANSWER_S = 5  # for the last answers to be written, after the backend has given up


def serve(
    backend: Submits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: WebSettings | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    After that no request is taken; those running finish within `settings.drain_s` seconds or are
    answered 503, and the signal then ends the process as it would have.

    Parameters
    ----------
    backend : Submits
        Who makes the clips.
    host : str
        Address to listen on; 127.0.0.1 is for this machine alone.
    port : int
        0 takes a free one, which is printed.
    settings : WebSettings, optional

    Raises
    ------
    BackendUnavailable
        When the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = settings or WebSettings.from_environment()
    listening = _listen(host, port)
    config = uvicorn.Config(
        create_app(backend, settings=chosen),
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=int(chosen.drain_s) + ANSWER_S,
        server_header=False,
    )
    print(f"serving on http://{host}:{listening.getsockname()[1]}", flush=True)
    _Server(config, chosen.drain_s).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's, closing the backend while running requests are waited for."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let what runs finish or be refused, and end."""
        backend: Submits = self.config.app.state.backend  # type: ignore[union-attr]
        closing = asyncio.ensure_future(asyncio.to_thread(backend.close, self._drain_s))
        await super().shutdown(sockets)
        await closing


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise BackendUnavailable(
            f"cannot listen on {host}:{port} ({error.strerror}); name another with --port"
        ) from error
    return listening
