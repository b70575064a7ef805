"""The page for blind listening, alone as `musicgen-lab listen` shows it or mounted in another app.

What leaves for the browser are the prompt, random names, and sounds that are alike in all but their
music: nothing that tells which clip is heard.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from musicgen_lab.errors import InvalidRequest, MusicGenLabError, RunFolderUnwritable
from musicgen_lab.listening.blind.session import BlindSession, Mode, Trial
from musicgen_lab.listening.blind.sounds import equal_sounds
from musicgen_lab.player import BASE_STYLE
from musicgen_lab.runs.answers import COMMENT_MAX_CHARACTERS
from musicgen_lab.runs.run_table import RunTable

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": PAGE / "page.html",
    "/base.css": BASE_STYLE,
    "/page.css": PAGE / "page.css",
    "/page.js": PAGE / "page.js",
}
BODY_MAX_BYTES = 8 * COMMENT_MAX_CHARACTERS
SESSIONS_MAX = 16
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ANSWER_FIELDS = ("choice", "quality", "fit", "comment")


class BlindSessions:
    """The sessions of all who listen to a run at the same time, one for each name and mode.

    A name in small letters and in capitals is one name.
    Those that were used last are kept; another one of the same listener goes on where one that was
    dropped ended. All methods may be called from several threads.

    Parameters
    ----------
    table : RunTable

    Attributes
    ----------
    answered : int
        Answers given here.
    """

    def __init__(self, table: RunTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._questions: OrderedDict[tuple[str, str], _Question] = OrderedDict()
        self.answered = 0

    def show(self, listener: str, mode: str) -> dict[str, Any]:
        """Return what the page of a listener shows now.

        Raises
        ------
        InvalidRequest
            When nobody has such a name, there is no such mode, or nothing is there to be compared.
        RunFolderUnwritable
            When answers cannot be written.
        """
        return self._question(listener, mode).show()

    def answer(self, listener: str, mode: str, trial: str, given: dict[str, Any]) -> dict[str, Any]:
        """Write an answer down, and return what the page shows next.

        Raises
        ------
        InvalidRequest
        RunFolderUnwritable
        """
        question = self._question(listener, mode)
        question.answer(trial, given)
        with self._lock:
            self.answered += 1
        return question.show()

    def sound(self, name: str) -> bytes | None:
        """Return a sound of an open question; None if there is none of this name."""
        with self._lock:
            questions = list(self._questions.values())
        return next((q.sounds[name] for q in questions if name in q.sounds), None)

    def _question(self, listener: str, mode: str) -> _Question:
        key = (listener.casefold(), mode)
        with self._lock:
            if key not in self._questions:
                session = BlindSession(self._table, listener, cast(Mode, mode))
                self._questions[key] = _Question(session)
            self._questions.move_to_end(key)
            while len(self._questions) > SESSIONS_MAX:
                self._questions.popitem(last=False)
            return self._questions[key]


class _Question:
    """The question that a session asks now, with the random names of its sounds."""

    def __init__(self, session: BlindSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._trial: Trial | None = None
        self.sounds: dict[str, bytes] = {}

    def answer(self, trial: str, given: dict[str, Any]) -> None:
        with self._lock:
            self._session.answer(trial, **given)

    def show(self) -> dict[str, Any]:
        with self._lock:
            session = self._session
            trial = session.trial
            view = {
                "mode": session.mode,
                "listener": session.listener,
                "answered": session.answered,
            }
            if trial is None:
                return view | {"trial": None}
            if trial != self._trial:
                clips = [session.table.clip(key) for key in trial.clips]
                sounds = equal_sounds(clips, session.length_s(trial))
                self.sounds = {secrets.token_hex(16): sound for sound in sounds}
                self._trial = trial
            return view | {
                "trial": trial.id,
                "prompt": session.prompt(trial),
                "sounds": [f"sound/{name}" for name in self.sounds],
            }


def create_app(sessions: BlindSessions) -> Starlette:
    """Return the page of a run's blind tests as an ASGI app.

    All its addresses are relative, so that it can be mounted anywhere in another app; its own ends
    with a slash. The listener and the mode are in the fragment of the page's address, such as
    `#listener=Ada&mode=abx`; without a listener, the page asks.

    Parameters
    ----------
    sessions : BlindSessions

    Returns
    -------
    Starlette
    """

    def file(path: Path) -> Callable[[Request], Response]:
        return lambda request: FileResponse(path, headers=HEADERS)

    def sound(request: Request) -> Response:
        content = sessions.sound(request.path_params["name"])
        if content is None:
            return _refuse(404, "the question with this sound is not open any more")
        return Response(content, media_type="audio/wav", headers=HEADERS)

    async def trial(request: Request) -> Response:
        return await answered(request, lambda fields: sessions.show(*_listener_of(fields)))

    async def answer(request: Request) -> Response:
        def write(fields: dict[str, Any]) -> dict[str, Any]:
            given = {name: fields[name] for name in ANSWER_FIELDS if name in fields}
            return sessions.answer(*_listener_of(fields), str(fields.get("trial")), given)

        return await answered(request, write)

    async def answered(
        request: Request, view: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Response:
        """Answer a request with a JSON body by what the page shows then."""
        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind != "application/json":  # other pages cannot send that without being allowed to
            return _refuse(415, "the body must be application/json")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY_MAX_BYTES:
                return _refuse(413, f"the body may have {BODY_MAX_BYTES:,} bytes")
        try:
            fields = json.loads(body)
            if not isinstance(fields, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            return _refuse(400, "the body must be a JSON object")
        try:
            return JSONResponse(await run_in_threadpool(view, fields), headers=HEADERS)
        except InvalidRequest as error:
            return _refuse(422, str(error), error.field)
        except RunFolderUnwritable as error:
            return _refuse(507, str(error))
        except (KeyError, OSError, MusicGenLabError) as error:
            return _refuse(500, f"a clip cannot be read ({error}); start the program again")

    return Starlette(
        routes=[
            *(Route(address, file(path)) for address, path in FILES.items()),
            Route("/sound/{name}", sound),
            Route("/trial", trial, methods=["POST"]),
            Route("/answer", answer, methods=["POST"]),
        ]
    )


def _listener_of(fields: dict[str, Any]) -> tuple[str, str]:
    return str(fields.get("listener", "")), str(fields.get("mode", "pairs"))


def _refuse(status: int, detail: str, field: str | None = None) -> Response:
    return JSONResponse({"detail": detail, "field": field}, status, headers=HEADERS)
