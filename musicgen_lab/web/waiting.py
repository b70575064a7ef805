"""How long a client waits for its clip, and what it is told when that is too long."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError as FutureCancelled
from typing import Any, TypeVar

from fastapi import Request

from musicgen_lab.backends.submitting import RETRY_AFTER_S, Closing, Result
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.responses import Refusal, refuse_unavailable
from musicgen_lab.web.settings import WebSettings

RESPOND_ASYNC = "respond-async"  # RFC 7240
T = TypeVar("T")


async def make(
    wanted: GenerationRequest, admission: Admission, request: Request, settings: WebSettings
) -> Result:
    """Make a clip while its client waits; a client that disconnects frees its slot.

    Raises
    ------
    Refusal
        429, 499, 503 or 504.
    """
    try:
        future = asyncio.wrap_future(admission.submit(wanted))
    except BackendUnavailable as error:
        raise refuse_unavailable(error) from error
    try:
        return await in_time(future, request, settings)
    except BackendUnavailable as error:
        raise refuse_unavailable(error) from error
    except (asyncio.CancelledError, FutureCancelled):
        if future.cancelled():  # cancelled by the backend, not by this request's task
            raise refuse_unavailable(Closing("the service is shutting down")) from None
        raise
    finally:
        future.cancel()


async def in_time(awaited: asyncio.Future[T], request: Request, settings: WebSettings) -> T:
    """Return the result of a future for which a client waits.

    Raises
    ------
    Refusal
        499 when the client disconnects, 503 or 504 when it takes too long.
    """
    early = settings.answer_within_s is not None and settings.answer_within_s < settings.timeout_s
    limit_s = settings.answer_within_s if early else settings.timeout_s
    leaving = asyncio.ensure_future(_wait_until_gone(request))
    both: set[asyncio.Future[Any]] = {awaited, leaving}
    try:
        await asyncio.wait(both, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if awaited.done():
            return awaited.result()
        if leaving.done():
            raise Refusal(499, "the client disconnected before its clip was made")
    finally:
        leaving.cancel()
    if early:
        change = "without stream, " if "stream" in request.query_params else ""
        raise Refusal(
            503,
            f"the clip was not made within {limit_s:g} s, as long as a call may last here; "
            f"send it {change}with the header Prefer: {RESPOND_ASYNC} and come back for it",
            {"Retry-After": str(RETRY_AFTER_S)},
        )
    raise Refusal(
        504,
        f"the clip was not made within {limit_s:g} s; ask for a shorter one, or try again "
        "when the service is less busy",
    )


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
