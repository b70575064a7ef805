"""The body of a request: read within limits, and parsed into fields."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from musicgen_lab.backends.wire import PROMPTS_MAX
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS, field_type, unknown_field
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.responses import JSON, Refusal, limit_of, refuse_field
from musicgen_lab.web.settings import WebSettings

INTEGERS = {name for name in REQUEST_FIELDS if field_type(name) is int}
DIGITS_MAX = 300  # of an integer; one that has more is over every limit
BYTES = "application/octet-stream"
PROMPTS_BODY_MAX_BYTES = 1024**2
JSON_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


async def read_fields(
    request: Request, settings: WebSettings, *, limit: int | None = None
) -> bytes:
    """Return a JSON body, within the limits of size and time.

    Parameters
    ----------
    request : Request
    settings : WebSettings
    limit : int, optional
        In bytes, in place of that of the settings.

    Raises
    ------
    Refusal
        As `_read`, and 415.
    """
    kind = _content_type(request)
    if kind != JSON:
        raise Refusal(
            415, f"the body must be sent as Content-Type: {JSON}, got {kind[:100] or 'none'}"
        )
    return await _read(
        request,
        limit or settings.body_max_bytes,
        settings.read_timeout_s,
        way_out="shorten the prompt",
    )


async def read_sound(request: Request, settings: WebSettings) -> bytes:
    """Return a body that is a sound file, within the limits of size and time.

    Raises
    ------
    Refusal
        As `_read`, and 415.
    """
    kind = _content_type(request)
    if not kind.startswith("audio/") and kind != BYTES:
        raise Refusal(
            415,
            "the body must be a WAV, FLAC, MP3 or Ogg file, sent as Content-Type: audio/wav, "
            f"audio/flac, audio/mpeg, audio/ogg or {BYTES}, got {kind[:100] or 'none'}",
        )
    limit, way_out = settings.source_max_bytes, "send less of the sound, or as FLAC or MP3"
    return await _read(request, limit, settings.source_timeout_s, way_out=way_out)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, limit: int, timeout_s: float, *, way_out: str) -> bytes:
    """Return a body of at most so many bytes that arrives in time.

    Raises
    ------
    Refusal
        408, 413, or 499 when the client disconnects.
    """
    # The connection stays open, so that a client that is still sending receives the response.
    too_large = Refusal(413, f"the body may have {limit:,} bytes, got more; {way_out}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        seconds = f"{timeout_s:g} s"
        close = {"Connection": "close"}
        raise Refusal(408, f"the body did not arrive within {seconds}", close) from None
    except ClientDisconnect:
        raise Refusal(499, "the client disconnected while sending its request") from None
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises
    ------
    Refusal
        422.
    """
    try:
        fields = json.loads(
            body,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=lambda text: int(text) if len(text) <= DIGITS_MAX else float(text),
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refusal(422, f"the body must be JSON: {reason}", field=None, limit=None) from None
    if not isinstance(fields, dict):
        given = JSON_NAMES.get(type(fields), "a number")
        raise Refusal(
            422, f"the body must be a JSON object of fields, got {given}", field=None, limit=None
        )
    return fields


def check_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request; their values are checked by the request itself.

    Raises
    ------
    Refusal
        422 when one is unknown.
    """
    for name in fields.keys() - set(REQUEST_FIELDS):
        raise refuse_field(unknown_field(name[:100]))
    for name in INTEGERS & fields.keys():  # JSON has one number type: 250.0 is an integer
        if isinstance(fields[name], float) and fields[name].is_integer():
            fields[name] = int(fields[name])
    return fields


def check_prompts(body: dict[str, Any]) -> list[str]:
    """Return the prompts in the body of a question what a model reads of them.

    Raises
    ------
    Refusal
        422 when it has other fields, or something other than a few prompts.
    """
    for name in body.keys() - {"model", "prompts"}:
        detail = f"unknown field {name[:100]!r}; the fields are model, prompts"
        raise Refusal(422, detail, field=name[:100], limit=None)
    prompts = body.get("prompts")
    if not isinstance(prompts, list) or not 1 <= len(prompts) <= PROMPTS_MAX:
        given = (
            f"{len(prompts)} of them" if isinstance(prompts, list) else short(prompts, json.dumps)
        )
        raise Refusal(
            422,
            f"prompts must be a list of 1 to {PROMPTS_MAX} texts, got {given}",
            field="prompts",
            limit={"type": "array", "minItems": 1, "maxItems": PROMPTS_MAX},
        )
    try:
        return [GenerationRequest(prompt=prompt).prompt for prompt in prompts]
    except InvalidRequest as error:
        raise refuse_field(error) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            shown = name[:100]
            raise Refusal(422, f"{shown!r} is in the body twice", field=shown, limit=limit_of(name))
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number there")
