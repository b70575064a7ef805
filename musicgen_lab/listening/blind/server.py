"""The page for blind listening, served on this machine until Ctrl-C."""

from __future__ import annotations

from contextlib import suppress

import uvicorn

from musicgen_lab.listening.blind.app import create_app
from musicgen_lab.listening.blind.session import BlindSession
from musicgen_lab.web.server import listening_socket

HOST = "127.0.0.1"


def serve(session: BlindSession, *, port: int) -> None:
    """Show a session's questions in a browser on this machine, until Ctrl-C.

    Parameters
    ----------
    session : BlindSession
    port : int
        0 takes a free one. The page's address is printed.

    Raises
    ------
    BackendUnavailable
        When the port is taken.
    """
    listening = listening_socket(HOST, port)
    config = uvicorn.Config(
        create_app(session), ws="none", access_log=False, log_level="error", server_header=False
    )
    number = listening.getsockname()[1]
    print(f"open http://{HOST}:{number} to listen; Ctrl-C ends", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
