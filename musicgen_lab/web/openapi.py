"""The web app's OpenAPI document, from the same schema that checks every request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from musicgen_lab.request import GenerationRequest

REQUEST = "GenerationRequest"
ERROR = "Refusal"


def _refusal(description: str, *, retry: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ERROR}"}}},
    }
    if retry:
        schema = {"type": "integer", "minimum": 1}
        answer["headers"] = {"Retry-After": {"description": "Whole seconds.", "schema": schema}}
    return answer


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
        "description": "Fields that were sent and could not act, each with the reason.",
    },
    "elapsed_s": {"type": "number", "description": "Seconds it took to make, waiting excluded."},
    "provenance": {"type": "object", "description": "Engine, device, precision and versions."},
}

GENERATE: dict[str, Any] = {
    "summary": "Generate music",
    "description": "Make one clip. `Accept` chooses JSON with a WAV inside (the default), or the "
    "sound itself as audio/wav, audio/flac or audio/mpeg.",
    "responses": {
        200: {
            "description": "The clip.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": list(_PROPERTIES),
                        "properties": _PROPERTIES,
                    }
                },
                "audio/wav": _SOUND,
                "audio/flac": _SOUND,
                "audio/mpeg": _SOUND,
            },
        },
        401: _refusal("A key is set and was not sent."),
        406: _refusal("Accept allows none of the media types there are."),
        413: _refusal("The body is too large."),
        422: _refusal("A field is missing, unknown or outside its limits, which `limit` names."),
        429: _refusal("Too many requests wait already.", retry=True),
        502: _refusal("The model failed on this request; `error_type` says how."),
        503: _refusal("Shutting down, or the GPU cannot be reached.", retry=True),
        504: _refusal("The clip was not made in time."),
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
        "security": [{}, {"key": []}],
    },
}

HEALTH: dict[str, Any] = {
    "summary": "Health check",
    "description": "Says that the service runs and which model it serves, without waking a GPU.",
    "responses": {
        200: {
            "description": "It runs.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["status", "model"],
                        "properties": {
                            "status": {"type": "string", "const": "ok"},
                            "model": {"type": "string"},
                            "backend": {"type": "object", "description": "With deep alone."},
                        },
                    }
                }
            },
        },
        401: _refusal("A key is set, deep was asked for, and the key was not sent."),
        422: _refusal("deep is neither true nor false."),
        503: _refusal("The model cannot be reached (deep alone).", retry=True),
        504: _refusal("The model did not answer in time (deep alone)."),
    },
}

MODELS: dict[str, Any] = {
    "summary": "Models that may be asked for",
    "description": "Names with revisions, the default first, and the format of answers.",
    "responses": {
        200: {
            "description": "The models.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["format", "models"],
                        "properties": {
                            "format": {"type": "integer"},
                            "models": {"type": "array", "items": {"type": "string"}},
                        },
                    }
                }
            },
        }
    },
}


def document(app: FastAPI, models: list[str]) -> dict[str, Any]:
    """Return the OpenAPI document, made once per app."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        body = GenerationRequest.model_json_schema()
        names = [*models, *(model.partition("@")[0] for model in models)]
        body["properties"]["model"]["anyOf"] = [{"enum": names}, {"type": "null"}]
        body["properties"]["prompt"] |= {"pattern": r"\S"}  # at least one character that is seen
        body["properties"]["seed"] = {"anyOf": [body["properties"]["seed"], {"type": "null"}]}
        components = schema.setdefault("components", {})
        components["schemas"] = {
            REQUEST: body,
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
