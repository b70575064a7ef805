"""Run a web app on a free port of this machine, in a thread, for as long as a test needs it."""

import contextlib
import socket
import threading

import uvicorn

from musicgen_lab.web.app import create_app
from musicgen_lab.web.connections import LimitedConnection


@contextlib.contextmanager
def serving(backend, **options):
    """Yield the base address of the app over a backend."""
    with running(create_app(backend, **options), http=LimitedConnection) as address:
        yield address


@contextlib.contextmanager
def running(app, *, port=0, **options):
    with socket.socket() as listening:
        # So that a server can be started again on its port while old connections are being closed.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()  # from now on connections wait for the server instead of being refused
        server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            if hasattr(app.state, "backend"):
                app.state.backend.close()
            server.should_exit = True
            thread.join()
