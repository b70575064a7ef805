"""The page for blind listening, served on this machine until Ctrl-C."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from musicgen_lab.listening.blind.app import BlindSessions, create_app
from musicgen_lab.listening.blind.session import BlindSession, Mode
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.web.server import listening_socket

HOST = "127.0.0.1"


def serve(table: RunTable, listener: str | None, mode: Mode, *, port: int) -> int:
    """Show a run's questions in a browser on this machine, until Ctrl-C.

    Parameters
    ----------
    table : RunTable
    listener : str or None
        Who listens; the page asks if None.
    mode : {"pairs", "abx", "rate"}
    port : int
        0 takes a free one. The page's address is printed.

    Returns
    -------
    int
        How many answers were given.

    Raises
    ------
    InvalidRequest
        When nobody has such a name, or nothing is there to be compared.
    RunFolderUnwritable
        When answers cannot be written.
    BackendUnavailable
        When the port is taken.
    """
    BlindSession(table, listener or "listener", mode)  # refuses what cannot be asked
    listening = listening_socket(HOST, port)
    sessions = BlindSessions(table)
    # Against DNS rebinding: the page is for this machine alone.
    app = TrustedHostMiddleware(create_app(sessions), allowed_hosts=[HOST, "localhost"])
    config = uvicorn.Config(
        app, ws="none", access_log=False, log_level="error", server_header=False
    )
    number = listening.getsockname()[1]
    asked = urlencode({"mode": mode} | ({"listener": listener} if listener else {}))
    print(f"open http://{HOST}:{number}/#{asked} to listen; Ctrl-C ends", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return sessions.answered
