"""`RequestLog`: one line of JSON per request, with an id that is also in the response."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
import traceback
from concurrent.futures import Future
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicgen_lab.backends import submitting
from musicgen_lab.backends.jobs import StartedJob
from musicgen_lab.backends.submitting import Result
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.streaming import ClipFailed
from musicgen_lab.web.metrics import Metrics
from musicgen_lab.web.responses import Refusal

REQUEST_ID = "X-Request-Id"
KEPT = re.compile(r"(?<=^/live/kept/)[^/]+")  # it works without the key
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
logger = logging.getLogger("musicgen_lab.service")


class RequestLog:
    """ASGI middleware. It logs no headers, bodies or queries: they may contain secrets.

    A `Refusal` becomes a response here. An unexpected error is answered 500 with the id only; the
    errors behind responses of 500 or more are logged with their tracebacks, and only logged. The
    random part of an address that works without the key is left out.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log its outcome."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if SANE_ID.fullmatch(given) else secrets.token_hex(8)
        started_s = time.perf_counter()
        line: dict[str, Any] = {
            "request_id": request_id,
            "method": scope["method"],
            "path": KEPT.sub("…", scope["path"]),
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
        except Refusal as refusal:
            if refusal.status >= 500:
                line |= {
                    "detail": refusal.detail,
                    **describe_error(refusal.failure, refusal.__cause__),
                }
            if line["status"] is not None:  # part of an answer is out already
                raise
            await refusal.response(request_id)(scope, receive, send_with_id)
        except Exception as error:
            line |= describe_error(None, error)
            if line["status"] is not None:
                raise
            failed = Refusal(500, "the service failed on this request; report its id to the owner")
            await failed.response(request_id)(scope, receive, send_with_id)
        finally:
            elapsed_s = time.perf_counter() - started_s
            line["elapsed_s"] = round(elapsed_s, 6)
            if line["status"] is not None:
                self._metrics.count(scope, line["status"], elapsed_s)
            logger.info(json.dumps(line))


def log_job_failure(job: StartedJob, request_id: str) -> None:
    """Log the error of a failed job under the id of the request that started it."""

    def log(result: Future[Result]) -> None:
        if result.cancelled():
            return
        error = result.exception()
        failure = None if error else result.result()
        if isinstance(failure, Clip):
            return
        line = {"request_id": request_id, "job": job.id, "status": "failed"}
        logger.info(json.dumps(line | describe_error(failure, error)))

    job.result.add_done_callback(log)


def describe_error(failure: Failure | None, error: BaseException | None) -> dict[str, str]:
    """Return the fields of a log line for a failure, or else for an error; none for neither."""
    if isinstance(error, ClipFailed):
        failure = error.failure
    if failure is not None:
        return {
            "error": failure.error_type,
            "message": failure.message,
            "traceback": failure.traceback,
        }
    if error is None:
        return {}
    lines = traceback.format_exception(error)
    return {"error": type(error).__name__, "message": str(error), "traceback": "".join(lines)}
