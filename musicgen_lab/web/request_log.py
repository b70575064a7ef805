"""`RequestLog`: one line of JSON per request, with an id that the answer carries too."""

from __future__ import annotations

import json
import logging
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicgen_lab.backends import submitting
from musicgen_lab.web.responses import Refusal

REQUEST_ID = "X-Request-Id"
logger = logging.getLogger("musicgen_lab.service")


class RequestLog:
    """ASGI middleware. It logs neither headers, bodies nor queries: they may hold secrets.

    What no handler expected is answered 500 with the id alone; the log has the error's class.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started_s = secrets.token_hex(8), time.perf_counter()
        line: dict[str, Any] = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": None,
        }
        submitting.REQUEST_ID.set(request_id)
        scope.setdefault("state", {})
        scope["state"] |= {"request_id": request_id, "log": line}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
                header = (REQUEST_ID.lower().encode(), request_id.encode())
                message["headers"] = [*message["headers"], header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            line["error"] = type(error).__name__
            if line["status"] is not None:  # part of an answer is out already
                raise
            refusal = Refusal(500, "the service failed on this request; say its id to its owner")
            await refusal.response(request_id)(scope, receive, send_with_id)
        finally:
            line["elapsed_s"] = round(time.perf_counter() - started_s, 6)
            logger.info(json.dumps(line))
