"""The web app's OpenAPI document, from the same schema that checks every request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from musicgen_lab.backends.jobs import KEPT_MAX_BYTES
from musicgen_lab.backends.wire import PROMPTS_MAX
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.settings import WebSettings

REQUEST = "GenerationRequest"
PROMPTS_BODY = "Prompts"
ERROR = "Refusal"


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _refusal(description: str, *, retry: bool = False) -> dict[str, Any]:
    answer = _json(description, {"$ref": f"#/components/schemas/{ERROR}"})
    if retry:
        answer["headers"] = {"Retry-After": _header("Whole seconds.", "integer")}
    return answer


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


SAMPLE_FORMAT = (
    "PCM_16 plays everywhere and is clipped at full scale; FLOAT has the samples exactly as the "
    "model made them. For WAV only."
)
STREAM = (
    "Answer while the clip is made, as a WAV or Ogg Vorbis file in parts, or as server-sent events "
    "(`Accept: text/event-stream`); `Prefer` has then no effect. MP3 and FLAC, whose headers "
    "depend on the whole sound, are answered 406: leave `stream` out for them, or accept audio/ogg."
)
_KEY: dict[str, Any] = {"security": [{}, {"key": []}]}
_NO_KEY = _refusal("The service has a key, which was missing or wrong.")
_WRONG_HOST = _refusal("The Host header does not name this server.")
_SOUND = {"schema": {"type": "string", "format": "binary"}}
_PROPERTIES: dict[str, Any] = {
    "audio_base64": {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": "audio/wav",
        "description": "A WAV file, base64 encoded: 16 bit, or 32-bit float when sample_format "
        "is FLOAT.",
    },
    "sample_rate": {"type": "integer", "description": "In Hz.", "examples": [32000]},
    "duration": {"type": "number", "description": "Of the sound, in seconds.", "examples": [8.0]},
    "seed": {"type": "integer", "description": "Send it to get the same clip again."},
    "model": {"type": "string", "description": "Name and revision, with an @ between."},
    "warnings": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Fields that were sent and have no effect, each with the reason.",
    },
    "elapsed_s": {"type": "number", "description": "Seconds it took to make, waiting excluded."},
    "provenance": {"type": "object", "description": "Engine, device, precision and versions."},
    "codes_base64": {
        "type": ["string", "null"],
        "contentEncoding": "base64",
        "description": "The codes of the clip as a NumPy file, which POST /sources takes to "
        "continue it; null where they are not known.",
    },
}
_CLIP = _object(list(_PROPERTIES), _PROPERTIES)
_SOUNDS = ("audio/wav", "audio/x-wav", "audio/flac", "audio/mpeg", "audio/mp3", "audio/ogg")
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
_CLIP_CONTENT = {
    "application/json": {"schema": _CLIP},
    **dict.fromkeys(_SOUNDS, _SOUND),
    **_EVENTS,
}
_STATE: dict[str, Any] = {
    "id": {"type": "string"},
    "status": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
    "url": {"type": "string", "format": "uri"},
    "steps_done": {"type": ["integer", "null"], "description": "Of the model's steps."},
    "steps": {"type": ["integer", "null"], "description": "Total steps; null if unknown."},
    "result": {**_CLIP, "description": "The clip, as in the response of POST; with done."},
    "error_type": {"type": "string", "description": "With failed."},
    "detail": {"type": "string", "description": "With failed."},
}
_JOB_STATE = _object(["id", "status", "url"], _STATE)

GENERATE: dict[str, Any] = {
    "summary": "Generate music",
    "description": "Make one clip. `Accept` selects JSON with a WAV file inside (the default), or "
    "the audio itself. With `Prefer: respond-async` the response is 202 at once, with the URL of a "
    "job. With `stream=1` the audio is sent while it is made: the response begins with the first "
    "tenths of a second, and a clip that fails later ends it in the middle. As server-sent events "
    "it consists of `sound` (`audio_base64`, a WAV file of the next part; `start_s`, `steps_done`, "
    "`steps`, `sample_rate`, and `total_samples` per channel of the whole clip) and ends with "
    "`done`, with the fields of the JSON response, or `failed`, with `detail` and `error_type`. "
    "The parts equal the clip within 1e-5 of full scale.",
    "responses": {
        200: {"description": "The clip.", "content": _CLIP_CONTENT},
        202: {
            **_json(
                "A job was started.",
                _object(
                    ["id", "status", "url", "warnings"],
                    {
                        **{name: _STATE[name] for name in ("id", "status", "url")},
                        "warnings": _PROPERTIES["warnings"],
                    },
                ),
            ),
            "headers": {
                "Location": _header("The job's URL.", "string"),
                "Preference-Applied": _header("respond-async", "string"),
            },
        },
        401: _NO_KEY,
        404: _refusal("The service does not have the sound to begin with."),
        406: _refusal(
            "Accept allows none of the available media types; with `stream`, these are WAV, Ogg "
            "and events."
        ),
        408: _refusal("The body did not arrive in time."),
        413: _refusal("The body is too large."),
        415: _refusal("The body is not application/json."),
        421: _WRONG_HOST,
        422: _refusal("A field is missing, unknown or outside its limits, see `limit`."),
        429: _refusal("Too many requests are waiting.", retry=True),
        502: _refusal("The model failed on this request, see `error_type`."),
        503: _refusal(
            "Shutting down, the model is being loaded, the GPU cannot be reached or was lost, or "
            "the clip takes longer than a call may last.",
            retry=True,
        ),
        504: _refusal("The clip was not finished in time."),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{REQUEST}"},
                    "example": {
                        "prompt": "upbeat electronic dance music with heavy bass",
                        "duration": 8.0,
                        "temperature": 1.0,
                        "top_k": 250,
                        "top_p": 0.0,
                        "cfg_coef": 3.0,
                    },
                }
            },
        },
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "description": "respond-async starts a job instead of waiting for the clip.",
                "schema": {"type": "string"},
                "example": "respond-async",
            }
        ],
        **_KEY,
    },
}

SOURCES: dict[str, Any] = {
    "summary": "Send a sound to begin clips with",
    "status_code": 201,
    "description": "The body is a WAV, FLAC, MP3 or Ogg file with 1 or 2 channels and 0.1 to 600 "
    "seconds, or the codes of a clip. Send the digest that is answered as `begin_with` of any "
    f"number of requests. A sound is kept for {WebSettings.jobs_kept_s / 60:g} minutes after its "
    "last use, less if many are sent; send it again when a request is answered 404.",
    "responses": {
        201: _json(
            "The sound is kept.",
            _object(
                ["begin_with", "duration", "sample_rate", "channels"],
                {
                    "begin_with": {"type": "string", "description": "SHA-256 of the body."},
                    "duration": {"type": "number", "description": "In seconds."},
                    "sample_rate": {
                        "type": ["integer", "null"],
                        "description": "In Hz; null for codes.",
                    },
                    "channels": {"type": ["integer", "null"], "description": "Null for codes."},
                },
            ),
        ),
        401: _NO_KEY,
        408: _refusal("The body did not arrive in time."),
        413: _refusal("The body is too large; /models says how large it may be."),
        415: _refusal("The body is not sent as a sound."),
        421: _WRONG_HOST,
        422: _refusal("The body cannot be begun with: no sound, cut short, silent or too long."),
        429: _refusal("Too many sounds are being received.", retry=True),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(
                ("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "application/octet-stream"),
                _SOUND,
            ),
        },
        **_KEY,
    },
}

PROMPTS: dict[str, Any] = {
    "summary": "What a model reads of prompts",
    "description": "For every prompt the digest of its tokens, which is that of another one where "
    "the two are the same to the model, and the words that its text encoder does not know. No clip "
    "is made, and no GPU started. Null instead of a list where the model is yet to be prepared.",
    "responses": {
        200: _json(
            "What is read.",
            _object(
                ["prompts"],
                {
                    "prompts": {
                        "type": ["array", "null"],
                        "items": _object(
                            ["digest", "unread"],
                            {
                                "digest": {"type": "string"},
                                "unread": {"type": "array", "items": {"type": "string"}},
                            },
                        ),
                    }
                },
            ),
        ),
        401: _NO_KEY,
        408: _refusal("The body did not arrive in time."),
        413: _refusal("The body is too large."),
        415: _refusal("The body is not application/json."),
        421: _WRONG_HOST,
        422: _refusal("A field is missing, unknown or outside its limits, see `limit`."),
        503: _refusal("The model cannot be asked now.", retry=True),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{PROMPTS_BODY}"},
                    "example": {"prompts": ["calm acoustic guitar melody"]},
                }
            },
        },
        **_KEY,
    },
}

_JOB_REFUSALS: dict[int | str, Any] = {
    401: _NO_KEY,
    404: _refusal("There is no such job."),
    410: _refusal("The job has ended and its result has expired."),
    421: _WRONG_HOST,
    503: _refusal("The job's state is not available now.", retry=True),
}

JOB: dict[str, Any] = {
    "summary": "A job's state, progress and result",
    "description": "`Accept` selects the format as for POST: JSON is answered with 200 in every "
    "state, and has the result when the job is done; audio is answered once it is available; "
    "text/event-stream is answered with an event `progress` whenever the job has advanced, and at "
    "last `done`, `failed` or `cancelled`, each with the fields of the JSON response. "
    f"Results are kept for {WebSettings.jobs_kept_s / 60:g} minutes, the last "
    f"{WebSettings.jobs_kept_max} of them up to {KEPT_MAX_BYTES / 1e6:.0f} MB; on Modal all, for 7 "
    "days.",
    "responses": {
        200: {
            "description": "The job, or its audio.",
            "content": {**_CLIP_CONTENT, "application/json": {"schema": _JOB_STATE}},
        },
        **_JOB_REFUSALS,
        406: _refusal("Accept allows none of the available media types."),
        409: _refusal("Accept allows only audio, which is not available (yet).", retry=True),
        422: _refusal(
            "A parameter is unknown; or Accept allows only audio, and the request is invalid."
        ),
        502: _refusal("Accept allows only audio, and the model failed, see `error_type`."),
        504: _refusal("Accept allows only audio, and the clip was not finished in time."),
    },
    "openapi_extra": _KEY,
}

CANCEL: dict[str, Any] = {
    "summary": "Cancel a job",
    "description": "Cancels the job, which frees its slot. A job that has ended is left unchanged.",
    "responses": {200: _json("The job.", _JOB_STATE), **_JOB_REFUSALS},
    "openapi_extra": _KEY,
}

HEALTH: dict[str, Any] = {
    "summary": "Health check",
    "description": "Returns that the service runs and which model it serves, without starting a "
    "GPU.",
    "responses": {
        200: _json(
            "The service runs.",
            _object(
                ["status", "model"],
                {
                    "status": {"type": "string", "const": "ok"},
                    "model": {"type": "string"},
                    "backend": {"type": "object", "description": "Only with deep."},
                },
            ),
        ),
        401: _refusal("The service has a key, deep was requested, and the key was not sent."),
        403: _refusal("Deep was requested, and the service is public."),
        421: _WRONG_HOST,
        422: _refusal("deep is neither true nor false."),
        503: _refusal("The model cannot be reached, or was lost (only with deep).", retry=True),
        504: _refusal("The model did not answer in time (only with deep)."),
    },
}

READY: dict[str, Any] = {
    "summary": "Readiness",
    "description": "Returns whether a request would be accepted now, without starting a GPU.",
    "responses": {
        200: _json(
            "It would be.", _object(["status"], {"status": {"type": "string", "const": "ready"}})
        ),
        421: _WRONG_HOST,
        503: _refusal("Shutting down, or the device was lost.", retry=True),
    },
}

MODELS: dict[str, Any] = {
    "summary": "Available models",
    "description": "Names with revisions, the default first; the tokens in a codebook of each, or "
    "2,048 where that is not known; the format of responses, the longest clip, and the "
    "largest sound to begin with.",
    "responses": {
        200: _json(
            "The models.",
            _object(
                ["format", "models", "codebook_sizes", "duration_max_s", "source_max_bytes"],
                {
                    "format": {"type": "integer"},
                    "duration_max_s": {"type": "number", "description": "In seconds."},
                    "source_max_bytes": {"type": "integer", "description": "Of POST /sources."},
                    "models": {"type": "array", "items": {"type": "string"}},
                    "codebook_sizes": {
                        "type": "object",
                        "additionalProperties": {"type": "integer"},
                    },
                },
            ),
        ),
        421: _WRONG_HOST,
    },
}

METRICS: dict[str, Any] = {
    "summary": "Metrics for Prometheus",
    "description": "Requests by status, queue depth, clips in progress, seconds of audio made, and "
    "latency.",
    "responses": {
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        401: _NO_KEY,
        421: _WRONG_HOST,
    },
    "openapi_extra": _KEY,
}


def document(app: FastAPI, models: list[str], settings: WebSettings) -> dict[str, Any]:
    """Return the OpenAPI document, made once per app."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        body = GenerationRequest.model_json_schema()
        names = [*models, *(model.partition("@")[0] for model in models)]
        body["properties"]["model"]["anyOf"] = [{"enum": names}, {"type": "null"}]
        body["properties"]["duration"] |= {"maximum": settings.duration_max_s}
        body["properties"]["prompt"] |= {"pattern": r"\S"}  # at least one character that is seen
        body["properties"]["seed"] = {"anyOf": [body["properties"]["seed"], {"type": "null"}]}
        components = schema.setdefault("components", {})
        components["schemas"] = {
            REQUEST: body,
            PROMPTS_BODY: {
                **_object(
                    ["prompts"],
                    {
                        "model": body["properties"]["model"],
                        "prompts": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": PROMPTS_MAX,
                            "items": body["properties"]["prompt"],
                        },
                    },
                ),
                "additionalProperties": False,
            },
            ERROR: {
                "type": "object",
                "required": ["detail", "request_id"],
                "properties": {
                    "detail": {"type": "string", "description": "One sentence."},
                    "request_id": {"type": "string", "description": "In the log too."},
                    "field": {"type": ["string", "null"], "description": "The field at fault."},
                    "limit": {"type": ["object", "null"], "description": "Its limits."},
                    "error_type": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        }
        key = {"type": "http", "scheme": "bearer", "description": "Where the owner set a key."}
        components["securitySchemes"] = {"key": key}
        app.openapi_schema = schema
    return app.openapi_schema
