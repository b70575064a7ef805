"""The web app: `POST /generate_endpoint` and `GET /health` over any backend.

`create_app` is what Modal's web function and `musicgen-lab serve` both run; `serve` runs it on
this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence
from concurrent.futures import CancelledError as FutureCancelled
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from musicgen_lab.backends.jobs import Jobs, LocalJobs
from musicgen_lab.backends.submitting import (
    Busy,
    Closing,
    Result,
    Submits,
    resolve_served,
)
from musicgen_lab.backends.wire import FORMAT
from musicgen_lab.clip import Failure
from musicgen_lab.errors import BackendUnavailable, InvalidRequest, ModelUnavailable
from musicgen_lab.request import (
    REQUEST_FIELDS,
    GenerationRequest,
    ignored_by_choice,
    unknown_field,
)
from musicgen_lab.version import VERSION
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.openapi import GENERATE, HEALTH, MODELS, document
from musicgen_lab.web.request_log import RequestLog
from musicgen_lab.web.responses import (
    RETRY_AFTER_S,
    Refusal,
    SampleFormat,
    answer_with,
    choose_media_type,
    json_response,
    limit_of,
    refuse_failure,
    refuse_field,
)
from musicgen_lab.web.settings import WebSettings

INTEGERS = {name for name in REQUEST_FIELDS if (limit_of(name) or {}).get("type") == "integer"}


def create_app(
    backend: Submits,
    *,
    jobs: Jobs | None = None,
    settings: WebSettings | None = None,
    served: Sequence[str] | None = None,
) -> FastAPI:
    """Return the web app over a backend.

    Parameters
    ----------
    backend : Submits
        Who makes the clips.
    jobs : Jobs, optional
        Who makes those that nobody waits for; by default the backend, in this process.
    settings : WebSettings, optional
        By default those of the environment.
    served : sequence of str, optional
        The models that clients may ask for, "name@revision" each, the first one being the
        default. By default the backend's own model alone: a client never names a file to open.

    Returns
    -------
    FastAPI
        An ASGI app. `app.state.backend` is what it submits to; whoever runs the app closes it.
    """
    chosen = settings or WebSettings.from_environment()
    admission = Admission(backend, chosen.waiting_max)
    jobs = jobs or LocalJobs(admission.submit, backend.progress, kept_s=3600, kept_max=64)
    models = list(served or [str(backend.resolve(GenerationRequest(prompt="any")).model)])
    app = FastAPI(
        title="MusicGen Lab",
        version=VERSION,
        description="Music from a text description, by MusicGen.",
    )
    app.state.backend = backend
    app.add_middleware(RequestLog)

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal) -> Response:
        return refusal.response(request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def refuse_query(request: Request, error: RequestValidationError) -> Response:
        detail = error.errors()[0]
        name = str(detail["loc"][-1])
        refusal = Refusal(422, f"{name}: {detail['msg']}", field=name, limit=None)
        return refusal.response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        refusal = Refusal(error.status_code, str(error.detail), error.headers)
        return refusal.response(request.state.request_id)

    @app.post("/generate_endpoint", **GENERATE)
    async def generate_endpoint(
        request: Request,
        sample_format: Annotated[
            SampleFormat,
            Query(
                description="PCM_16 plays everywhere and is clipped at full scale; FLOAT holds "
                "the samples exactly as the model made them. Acts on WAV alone."
            ),
        ] = "PCM_16",
    ) -> Response:
        check_key(request, chosen)
        media_type = choose_media_type(request.headers.get("accept", ""))
        fields = parse_fields(await read_body(request, chosen.body_max_bytes))
        try:
            wanted = resolve_served(GenerationRequest(**fields), models)
        except InvalidRequest as error:
            raise refuse_field(error) from None
        except ModelUnavailable as error:
            raise Refusal(422, str(error), field="model", limit={"enum": models}) from None
        warnings = ignored_by_choice(wanted, fields)
        request.state.log |= {"duration": wanted.duration, "seed": wanted.seed}
        result = await make(wanted, admission, request, chosen.timeout_s)
        if isinstance(result, Failure):
            raise refuse_failure(result)
        return await asyncio.to_thread(
            answer_with,
            result,
            media_type=media_type,
            sample_format=sample_format,
            warnings=warnings,
        )

    @app.get("/health", **HEALTH)
    async def health(
        request: Request,
        deep: Annotated[
            bool, Query(description="Ask the model too; this may start a GPU.")
        ] = False,
    ) -> Response:
        body: dict[str, Any] = {"status": "ok", "model": models[0].partition("@")[0]}
        if deep:
            check_key(request, chosen)
            body["backend"] = await look_deeper(backend, chosen.timeout_s)
        return json_response(body)

    @app.get("/models", **MODELS)
    async def list_models() -> Response:
        return json_response({"format": FORMAT, "models": models})

    app.openapi = lambda: document(app, models)  # type: ignore[method-assign]
    return app


def check_key(request: Request, settings: WebSettings) -> None:
    """Refuse a request without the key, where one is set, taking the same time for every guess.

    Raises
    ------
    Refusal
        401.
    """
    if settings.api_key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Header values arrive as latin-1, whatever bytes the client sent.
    same = hmac.compare_digest(given.strip().encode("latin-1"), settings.api_key.encode())
    if scheme.lower() != "bearer" or not same:
        raise Refusal(
            401,
            "this service needs its key: send the header Authorization: Bearer <key>",
            {"WWW-Authenticate": "Bearer"},
        )


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body, reading no more of it than the limit.

    Raises
    ------
    Refusal
        413.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise Refusal(
                413,
                f"the body may have {limit_bytes:,} bytes, got more; shorten the prompt",
                {"Connection": "close"},
            )
    return body


def parse_fields(body: bytes) -> dict[str, Any]:
    """Return the fields that a body names, their values unchecked.

    Raises
    ------
    Refusal
        422.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refusal(422, f"the body must be JSON: {reason}", field=None, limit=None) from None
    if not isinstance(fields, dict):
        raise Refusal(
            422,
            f"the body must be a JSON object of fields, got a {type(fields).__name__}",
            field=None,
            limit=None,
        )
    for name in fields.keys() - set(REQUEST_FIELDS):
        raise refuse_field(unknown_field(name[:100]))
    for name in INTEGERS & fields.keys():  # JSON has one kind of number: 250.0 is a whole one
        if isinstance(fields[name], float) and fields[name].is_integer():
            fields[name] = int(fields[name])
    return fields


async def make(
    wanted: GenerationRequest, admission: Admission, request: Request, timeout_s: float
) -> Result:
    """Make a clip while its client waits; a client that leaves gives its place away.

    Raises
    ------
    Refusal
        429, 503 or 504.
    """
    try:
        future = asyncio.wrap_future(admission.submit(wanted))
    except Busy as error:
        retry = {"Retry-After": str(error.retry_after_s)}
        raise Refusal(429, str(error), retry) from None
    except BackendUnavailable as error:
        raise _unavailable(error) from None
    leaving = asyncio.ensure_future(_wait_until_gone(request))
    awaited: set[asyncio.Future[Any]] = {future, leaving}
    try:
        await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if leaving.done():
            raise Refusal(499, "the client left before its clip was made")
        raise Refusal(
            504,
            f"the clip was not made within {timeout_s:g} s; ask for a shorter one, or try again "
            "when the service is less busy",
        )
    except BackendUnavailable as error:
        raise _unavailable(error) from None
    except (asyncio.CancelledError, FutureCancelled):
        if future.cancelled():  # the backend gave it up, not this request's task
            raise _unavailable(Closing("the service is shutting down")) from None
        raise
    finally:
        future.cancel()
        leaving.cancel()


def _unavailable(error: BackendUnavailable) -> Refusal:
    return Refusal(503, str(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def look_deeper(backend: Submits, timeout_s: float) -> dict[str, Any]:
    """Return what the backend says of itself.

    Raises
    ------
    Refusal
        503 when it cannot be reached.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(backend.describe), timeout=timeout_s)
    except BackendUnavailable as error:
        raise _unavailable(error) from None
    except TimeoutError:
        raise Refusal(504, f"the model did not answer within {timeout_s:g} s") from None
