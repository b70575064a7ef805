"""The web app: `POST /generate_endpoint`, `GET /health` and related endpoints, over any backend.

`create_app` is what Modal's web function and `musicgen-lab serve` both run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Match, Route

from musicgen_lab.backends.jobs import JobExpired, Jobs, JobStatus, JobUnknown, LocalJobs
from musicgen_lab.backends.submitting import RETRY_AFTER_S, Busy, Submits, resolve_served
from musicgen_lab.backends.wire import FORMAT, pack_prompts
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable, InvalidRequest, ModelUnavailable
from musicgen_lab.fields import limit_of
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest, ignored_by_choice
from musicgen_lab.source import DIGEST, Source
from musicgen_lab.version import VERSION
from musicgen_lab.web.access import HostCheck, SurplusCheck, check_key, check_may_wake
from musicgen_lab.web.admission import Admission
from musicgen_lab.web.body import (
    PROMPTS_BODY_MAX_BYTES,
    check_fields,
    check_prompts,
    parse_object,
    read_fields,
    read_sound,
)
from musicgen_lab.web.metrics import Metrics
from musicgen_lab.web.openapi import (
    CANCEL,
    GENERATE,
    HEALTH,
    JOB,
    METRICS,
    MODELS,
    PROMPTS,
    READY,
    SAMPLE_FORMAT,
    SOURCES,
    STREAM,
    document,
)
from musicgen_lab.web.request_log import REQUEST_ID, RequestLog, log_job_failure
from musicgen_lab.web.responses import (
    CLIP_TYPES,
    EVENTS,
    JSON,
    VARY,
    Refusal,
    SampleFormat,
    answer_with,
    choose_media_type,
    clip_body,
    json_response,
    refuse_failure,
    refuse_field,
    refuse_unavailable,
    unused_format,
)
from musicgen_lab.web.settings import WebSettings
from musicgen_lab.web.sources import SourceStore
from musicgen_lab.web.streams import NO_BUFFERING, STREAMED, job_events, stream_clip
from musicgen_lab.web.waiting import RESPOND_ASYNC, make

READABLE_HEADERS = ["Location", "Retry-After", REQUEST_ID, "MusicGen-Seed", "MusicGen-Model",
                    "MusicGen-Duration", "MusicGen-Warnings"]  # fmt: skip
Format = Annotated[SampleFormat, Query(description=SAMPLE_FORMAT)]
T = TypeVar("T")


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
        Makes the clips.
    jobs : Jobs, optional
        Runs requests in the background; by default the backend does, in this process.
    settings : WebSettings, optional
        By default those of the environment.
    served : sequence of str, optional
        The models that clients may ask for, "name@revision" each, the first one being the
        default. By default the backend's own model alone: a client never names a file to open.

    Returns
    -------
    FastAPI
        An ASGI app. `app.state` has the backend, which the caller must close, the settings, the
        admission, the models, and `resolve`, which makes a request of a body's fields.
    """
    chosen = settings or WebSettings.from_environment()
    kept = jobs or LocalJobs(
        backend.submit,
        backend.progress,
        kept_s=chosen.jobs_kept_s,
        kept_max=chosen.jobs_kept_max,
    )
    admission = Admission(backend, kept, chosen.waiting_max)
    metrics, sources = Metrics(admission), SourceStore(chosen)
    models = list(served or [str(backend.resolve(GenerationRequest(prompt="any")).model)])

    def resolve(fields: dict[str, Any]) -> GenerationRequest:
        """Return the request of these fields, or refuse them with 404 or 422."""
        put_source(fields, sources)
        try:
            wanted = resolve_served(GenerationRequest(**fields), models)
            check_duration(wanted, chosen)
        except InvalidRequest as error:
            raise refuse_field(error, chosen.duration_max_s) from None
        except ModelUnavailable as error:
            raise Refusal(422, str(error), field="model", limit={"enum": models}) from None
        return wanted

    app = FastAPI(
        title="MusicGen Lab",
        version=VERSION,
        description="Music from a text description, by MusicGen.",
        redirect_slashes=False,  # behind a proxy it would redirect from https to http
    )
    app.state.backend, app.state.settings = backend, chosen
    app.state.admission, app.state.models = admission, models
    app.state.resolve = resolve
    if chosen.hosts:
        app.add_middleware(HostCheck, hosts=chosen.hosts)
    app.add_middleware(SurplusCheck)
    app.add_middleware(RequestLog, metrics=metrics)
    if chosen.allowed_origins:  # the last one is the outermost: pages read refusals too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Prefer", REQUEST_ID],
            expose_headers=READABLE_HEADERS,
        )

    @app.exception_handler(RequestValidationError)
    async def refuse_query(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        name, expected = str(wrong["loc"][-1]), wrong.get("ctx", {}).get("expected")
        kind = "a whole number" if wrong["type"].startswith("int_") else "true or false"
        detail = f"{name} must be {expected or kind}, got {short(wrong['input'])}"
        return Refusal(422, detail, field=name, limit=None).response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> Response:
        headers = error.headers
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {short(request.url.path)}; /docs has the addresses"
        if error.status_code == 405:  # Starlette names the methods of the first route alone
            headers = {"Allow": ", ".join(allowed_methods(app, request))}
        refusal = Refusal(error.status_code, detail, headers)
        return refusal.response(request.state.request_id)

    @app.post("/generate_endpoint", **GENERATE)
    async def generate_endpoint(
        request: Request,
        sample_format: Format = "PCM_16",
        stream: Annotated[bool, Query(description=STREAM)] = False,
    ) -> Response:
        check_key(request, chosen)
        check_query(request, ("sample_format", "stream"))
        accept = request.headers.get("accept", "")
        if stream:
            way_out = "; leave stream out for another type"
            media_type = choose_media_type(accept, tuple(STREAMED), way_out)
        else:
            media_type = choose_media_type(accept, CLIP_TYPES)
        fields = check_fields(parse_object(await read_fields(request, chosen)))
        wanted = resolve(fields)
        warnings = ignored_by_choice(wanted, fields, backend.codebook_size(str(wanted.model)))
        request.state.log |= {"duration": wanted.duration, "seed": wanted.seed}
        if stream:
            return await stream_clip(
                wanted,
                admission,
                request,
                chosen,
                media_type=media_type,
                sample_format=sample_format,
                warnings=[*warnings, *unused_format(media_type, sample_format)],
            )
        if prefers_async(request):
            job = await ask(admission.start_job, wanted, warnings)
            request.state.log["job"] = job.id
            log_job_failure(job, request.state.request_id)
            url = str(request.url_for("job_status", job_id=job.id))
            body = {"id": job.id, "status": "queued", "url": url, "warnings": warnings}
            headers = {"Location": url, "Preference-Applied": RESPOND_ASYNC}
            return json_response(body, status=202, headers=headers)
        result = await make(wanted, admission, request, chosen)
        if isinstance(result, Failure):
            raise refuse_failure(result)
        return await asyncio.to_thread(
            answer_with,
            result,
            media_type=media_type,
            sample_format=sample_format,
            warnings=warnings,
        )

    @app.post("/sources", **SOURCES)
    async def keep_source(request: Request) -> Response:
        check_key(request, chosen)
        try:
            with sources.uploading():
                content = await read_sound(request, chosen)
                source = await asyncio.to_thread(Source.of_bytes, content, "the body")
        except Busy as error:
            raise refuse_unavailable(error) from None
        except InvalidRequest as error:
            raise Refusal(422, str(error), field="begin_with", limit=None) from None
        sources.put(source)
        body = {
            "begin_with": source.digest,
            "duration": source.duration_s,
            "sample_rate": source.sample_rate,
            "channels": source.channels,
        }
        return json_response(body, status=201)

    @app.post("/prompts", **PROMPTS)
    async def read_prompts(request: Request) -> Response:
        check_key(request, chosen)
        body = parse_object(await read_fields(request, chosen, limit=PROMPTS_BODY_MAX_BYTES))
        prompts = check_prompts(body)
        model = str(resolve({"prompt": prompts[0], "model": body.get("model")}).model)
        read = await ask(backend.read_prompts, model, prompts)
        return json_response({"prompts": None if read is None else pack_prompts(read)})

    @app.get("/generate_endpoint/{job_id}", **JOB)
    async def job_status(
        request: Request, job_id: str, sample_format: Format = "PCM_16"
    ) -> Response:
        check_key(request, chosen)
        check_query(request, ("sample_format",))
        accept = request.headers.get("accept", "")
        media_type = choose_media_type(accept, (*CLIP_TYPES, EVENTS))
        status = await ask(kept.status, job_id)
        if media_type == EVENTS:
            return StreamingResponse(
                job_events(
                    status,
                    lambda: ask(kept.status, job_id),
                    partial(describe_job, request, job_id, sample_format=sample_format),
                ),
                media_type=EVENTS,
                headers={**VARY, **NO_BUFFERING},
            )
        if media_type == JSON:
            body = await asyncio.to_thread(describe_job, request, job_id, status, sample_format)
            return json_response(body, headers=VARY)
        if isinstance(status.result, Clip):
            return await asyncio.to_thread(
                answer_with,
                status.result,
                media_type=media_type,
                sample_format=sample_format,
                warnings=status.warnings,
            )
        if status.result is not None:
            raise refuse_failure(status.result)
        retry = {"Retry-After": str(RETRY_AFTER_S)} if status.state != "cancelled" else {}
        raise Refusal(409, f"no audio is available: the job is {status.state}", {**VARY, **retry})

    @app.delete("/generate_endpoint/{job_id}", **CANCEL)
    async def cancel_job(request: Request, job_id: str) -> Response:
        check_key(request, chosen)
        status = await ask(kept.cancel, job_id)
        return json_response(describe_job(request, job_id, status, None))

    @app.get("/health", **HEALTH)
    @app.head("/health", include_in_schema=False)
    async def health(
        request: Request,
        deep: Annotated[
            bool, Query(description="Check the model too; this may start a GPU.")
        ] = False,
    ) -> Response:
        body: dict[str, Any] = {"status": "ok", "model": models[0].partition("@")[0]}
        if deep:
            check_may_wake(request, chosen)
            body["backend"] = await look_deeper(backend, chosen.timeout_s)
        return json_response(body)

    @app.get("/ready", **READY)
    async def ready() -> Response:
        try:
            backend.check()
        except BackendUnavailable as error:
            raise refuse_unavailable(error) from error
        return json_response({"status": "ready"})

    @app.get("/models", **MODELS)
    async def list_models() -> Response:
        limits = {
            "duration_max_s": chosen.duration_max_s,
            "source_max_bytes": chosen.source_max_bytes,
            "codebook_sizes": {model: backend.codebook_size(model) for model in models},
        }
        return json_response({"format": FORMAT, "models": models, **limits})

    @app.get("/metrics", **METRICS)
    async def show_metrics(request: Request) -> Response:
        check_key(request, chosen)
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    app.openapi = lambda: document(app, models, chosen)  # type: ignore[method-assign]
    return app


def put_source(fields: dict[str, Any], sources: SourceStore) -> None:
    """Put the sound that a client sent before in the place of its digest.

    Raises
    ------
    Refusal
        404 when it is not here (any more).
    """
    digest = fields.get("begin_with")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return
    fields["begin_with"] = sources.get(digest)
    if fields["begin_with"] is None:
        detail = f"begin_with {digest[:12]}… is no sound that this service has; POST it to /sources"
        raise Refusal(404, detail, field="begin_with", limit=None)


def check_query(request: Request, known: Sequence[str]) -> None:
    """Reject a query with another parameter, such as a misspelt one.

    Raises
    ------
    Refusal
        422.
    """
    for name in request.query_params.keys() - set(known):
        detail = f"unknown parameter {short(name)} in the address; there is {' and '.join(known)}"
        raise Refusal(422, detail, field=name[:100], limit=None)


def check_duration(request: GenerationRequest, settings: WebSettings) -> None:
    """Raise if a clip is longer than this service makes.

    Raises
    ------
    InvalidRequest
    """
    if request.duration > settings.duration_max_s:
        raise InvalidRequest(
            f"duration must be {limit_of('duration')}, got {request.duration:g}",
            field="duration",
            value=request.duration,
        )


def allowed_methods(app: FastAPI, request: Request) -> list[str]:
    """Return the methods of all routes that match a request's path."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


def prefers_async(request: Request) -> bool:
    """Return whether a client prefers a job to waiting for its clip."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(part.partition(";")[0].strip().lower() == RESPOND_ASYNC for part in preferences)


async def ask(method: Callable[..., T], *arguments: Any) -> T:
    """Call a method of `Jobs` or of the backend, which may block, in a thread.

    Raises
    ------
    Refusal
        404, 410, 429 or 503.
    """
    try:
        return await asyncio.to_thread(method, *arguments)
    except JobUnknown as error:
        raise Refusal(404, str(error)) from None
    except JobExpired as error:
        raise Refusal(410, str(error)) from None
    except BackendUnavailable as error:
        raise refuse_unavailable(error) from error


def describe_job(
    request: Request, job_id: str, status: JobStatus, sample_format: SampleFormat | None
) -> dict[str, Any]:
    """Return a job's state, progress, and result in a sample format; None leaves the result out.

    The result has the same fields as the response to a client that waits.
    """
    body: dict[str, Any] = {
        "id": job_id,
        "status": status.state,
        "url": str(request.url_for("job_status", job_id=job_id)),
        "steps_done": status.steps_done,
        "steps": status.steps,
    }
    if isinstance(status.result, Failure):
        refusal = refuse_failure(status.result)
        body |= {"detail": refusal.detail, **refusal.fields}
    elif status.result is not None and sample_format is not None:
        body["result"] = clip_body(status.result, sample_format, status.warnings)
    return body


async def look_deeper(backend: Submits, timeout_s: float) -> dict[str, Any]:
    """Return the backend's description.

    Raises
    ------
    Refusal
        503 when it cannot be reached, 504 when it does not answer.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(backend.describe), timeout=timeout_s)
    except BackendUnavailable as error:
        raise refuse_unavailable(error) from error
    except TimeoutError:
        raise Refusal(504, f"the model did not answer within {timeout_s:g} s") from None
