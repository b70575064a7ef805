"""The page for blind listening, on this machine.

What leaves for the browser are the prompt, random names, and sounds that are alike in all but their
music: nothing that tells which clip is heard.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from musicgen_lab.errors import InvalidRequest, MusicGenLabError, RunFolderUnwritable
from musicgen_lab.listening.blind.session import BlindSession, Trial
from musicgen_lab.listening.blind.sounds import equal_sounds
from musicgen_lab.runs.answers import COMMENT_MAX_CHARACTERS

PAGE = Path(__file__).parent / "page"
FILES = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}
BODY_MAX_BYTES = 8 * COMMENT_MAX_CHARACTERS
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ANSWER_FIELDS = ("choice", "quality", "fit", "comment")


def create_app(session: BlindSession) -> Starlette:
    """Return the page of a session as an ASGI app.

    Parameters
    ----------
    session : BlindSession

    Returns
    -------
    Starlette
    """
    shown = _Shown(session)

    def page(request: Request) -> Response:
        return FileResponse(PAGE / FILES[request.url.path], headers=HEADERS)

    def trial(request: Request) -> Response:
        return answered(shown.trial)

    def sound(request: Request) -> Response:
        content = shown.sound(request.path_params["name"])
        if content is None:
            return _json({"detail": "this question has been answered already"}, 404)
        return Response(content, media_type="audio/wav", headers=HEADERS)

    async def answer(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind != "application/json":  # other pages cannot send that without being allowed to
            return _json({"detail": "the body must be application/json", "field": None}, 415)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY_MAX_BYTES:
                return _json(
                    {"detail": f"the body may have {BODY_MAX_BYTES:,} bytes", "field": None}, 413
                )
        try:
            fields = json.loads(body)
            if not isinstance(fields, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            return _json({"detail": "the body must be a JSON object", "field": None}, 400)
        return await run_in_threadpool(answer_with, fields)

    def answer_with(fields: dict[str, Any]) -> Response:
        given = {name: fields[name] for name in ANSWER_FIELDS if name in fields}
        return answered(lambda: shown.answer(str(fields.get("trial")), given))

    def answered(view: Callable[[], dict[str, Any]]) -> Response:
        try:
            return _json(view())
        except InvalidRequest as error:
            return _json({"detail": str(error), "field": error.field}, 422)
        except RunFolderUnwritable as error:
            return _json({"detail": str(error), "field": None}, 507)
        except (KeyError, OSError, MusicGenLabError) as error:
            detail = f"a clip cannot be read ({error}); end with Ctrl-C and start again"
            return _json({"detail": detail, "field": None}, 500)

    return Starlette(
        routes=[
            *(Route(path, page) for path in FILES),
            Route("/trial", trial),
            Route("/sound/{name}", sound),
            Route("/answer", answer, methods=["POST"]),
        ],
        middleware=[
            # Against DNS rebinding: the page is for this machine alone.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        ],
    )


class _Shown:
    """The question on the page, with the random names of its sounds."""

    def __init__(self, session: BlindSession) -> None:
        self._session = session
        self._lock = threading.Lock()  # requests are answered in several threads
        self._trial: Trial | None = None
        self._sounds: dict[str, bytes] = {}

    def trial(self) -> dict[str, Any]:
        """Return what the page shows now."""
        with self._lock:
            return self._describe()

    def sound(self, name: str) -> bytes | None:
        """Return a sound of the question; None if its name is that of another one."""
        return self._sounds.get(name)

    def answer(self, trial: str, given: dict[str, Any]) -> dict[str, Any]:
        """Write an answer down, and return what the page shows next."""
        with self._lock:
            self._session.answer(trial, **given)
            return self._describe()

    def _describe(self) -> dict[str, Any]:
        session = self._session
        trial = session.trial
        view = {"mode": session.mode, "listener": session.listener, "answered": session.answered}
        if trial is None:
            return view | {"trial": None}
        if trial != self._trial:
            clips = [session.table.clip(key) for key in trial.clips]
            sounds = equal_sounds(clips, session.length_s(trial))
            self._sounds = {secrets.token_hex(16): sound for sound in sounds}
            self._trial = trial
        return view | {
            "trial": trial.id,
            "prompt": session.prompt(trial),
            "sounds": [f"/sound/{name}" for name in self._sounds],
        }


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers=HEADERS)
