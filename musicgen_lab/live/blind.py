"""Blind tests of kept clips, in the service that made them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

PAGES_MAX = 16  # the one that was opened first makes room; it is opened anew when it is used


def mount_blind_tests(app: FastAPI, folder_of: Callable[[str], Path]) -> None:
    """Mount the page for blind listening below the address of every kept run.

    Parameters
    ----------
    app : FastAPI
    folder_of : callable
        Returns the run folder of a kept run's name, or raises `Refusal`.
    """
    pages: OrderedDict[str, ASGIApp] = OrderedDict()
    opening = asyncio.Lock()

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path_params"]["name"]
        folder = folder_of(name)
        async with opening:
            if name not in pages:
                pages[name] = await asyncio.to_thread(open_page, folder)
            while len(pages) > PAGES_MAX:
                pages.popitem(last=False)
            page = pages[name]
        await page(scope, receive, send)

    app.mount("/live/kept/{name}/blind", show)


def open_page(folder: Path) -> ASGIApp:
    """Return the page of a run's blind tests as an ASGI app."""
    from musicgen_lab.listening.blind.app import BlindSessions, create_app
    from musicgen_lab.runs.run_table import RunTable

    return create_app(BlindSessions(RunTable.open(folder)))
