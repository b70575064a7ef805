"""The web app with the live page, on a free port of this machine."""

from __future__ import annotations

import contextlib

from musicgen_lab.live.page import add_live_page
from musicgen_lab.web.app import create_app
from tests.support.serving import running


@contextlib.contextmanager
def live_service(backend, runs=None, settings=None, port=0):
    """Yield the base address; port 0 takes a free one."""
    app = create_app(backend, settings=settings)
    add_live_page(app, runs=runs)
    with running(app, port=port) as address:
        yield address
