"""The web app's responses: JSON with the audio, the audio itself, or an error."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import soundfile
from fastapi import Response

from musicgen_lab.backends.submitting import LOST, RETRY_AFTER_S, Busy, RetryLater
from musicgen_lab.clip import PROMPT_UNREAD, Clip, Failure, conversion_note
from musicgen_lab.errors import BackendUnavailable, InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS, field_schema
from musicgen_lab.fields import limit_of as field_limit
from musicgen_lab.formatting import short
from musicgen_lab.limits import DURATION_MAX_S
from musicgen_lab.request import GenerationRequest

JSON = "application/json"
SOUNDS = {  # of equals, the first is chosen
    "audio/wav": "WAV",
    "audio/x-wav": "WAV",
    "audio/flac": "FLAC",
    "audio/mpeg": "MP3",
    "audio/mp3": "MP3",
    "audio/ogg": "OGG",
}
CLIP_TYPES = (JSON, *SOUNDS)
EVENTS = "text/event-stream"
VARY = {"Vary": "Accept"}
MESSAGE_MAX = 500  # characters of a message from elsewhere
LOST_ON_THE_WAY = (*LOST, "ResourceExhausted")  # nothing was made
SampleFormat = Literal["PCM_16", "FLOAT"]


class Refusal(Exception):
    """An error response.

    Parameters
    ----------
    status : int
        The HTTP status.
    detail : str
        One sentence for people.
    headers : Mapping, optional
        Additional headers.
    failure : Failure, optional
        The cause, for the log.
    **fields
        Additional JSON fields, such as the field at fault.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        failure: Failure | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.failure = status, detail, failure
        self.headers, self.fields = dict(headers or {}), fields

    def response(self, request_id: str) -> Response:
        """Return the response, with the request's id in the log."""
        body = {"detail": self.detail, **self.fields, "request_id": request_id}
        return json_response(body, status=self.status, headers=self.headers)


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return JSON in ASCII, so that any text from a client can be quoted back to it."""
    content = json.dumps(body, allow_nan=False).encode("ascii")
    return Response(content, status, headers=dict(headers or {}), media_type=JSON)


def refuse_field(error: InvalidRequest, duration_max_s: float = DURATION_MAX_S) -> Refusal:
    """Return 422 with the field, its limit here, and the value in JSON."""
    detail, given = str(error), short(error.value)
    detail = detail.replace(field_limit("duration"), field_limit("duration", duration_max_s))
    if detail.endswith(f", got {given}"):
        detail = detail.removesuffix(given) + short(error.value, json.dumps)
    return Refusal(422, detail, field=error.field, limit=limit_of(error.field, duration_max_s))


def refuse_unavailable(error: BackendUnavailable) -> Refusal:
    """Return 429 or 503 with the time after which to retry."""
    retry_after_s = error.retry_after_s if isinstance(error, RetryLater) else RETRY_AFTER_S
    status = 429 if isinstance(error, Busy) else 503
    return Refusal(status, str(error), {"Retry-After": str(retry_after_s)})


def refuse_failure(failure: Failure) -> Refusal:
    """Return 502 for an error of the model, 503 or 504 for a failure on the way to it.

    422 for a request that the model cannot be asked for, such as one with another model's codes.

    After 503 the same request can be sent again: nothing was made.
    """
    message = failure.message[:MESSAGE_MAX]
    fields: dict[str, Any] = {"error_type": failure.error_type, "message": message}
    if failure.error_type in LOST_ON_THE_WAY:
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        return Refusal(503, f"send it again: {message}", retry, failure=failure, **fields)
    if failure.error_type == InvalidRequest.__name__:  # known only where the model is
        first = failure.message.partition(" ")[0].rstrip(",")
        field = first if first in REQUEST_FIELDS else None
        return Refusal(422, message, failure=failure, field=field, limit=limit_of(field), **fields)
    if failure.error_type == "Timeout":
        return Refusal(504, message, failure=failure, **fields)
    return Refusal(
        502,
        f"the model failed on this request: {failure.error_type}: {message}",
        failure=failure,
        **fields,
    )


def limit_of(field: str | None, duration_max_s: float = DURATION_MAX_S) -> dict[str, Any] | None:
    """Return a field's limits from the request's schema; None if there is no such field."""
    schema = field_schema(field or "")
    if field == "duration":
        schema = {**schema, "maximum": duration_max_s}
    names = ("type", "minimum", "maximum", "minLength", "maxLength", "pattern")
    return {name: schema[name] for name in names if name in schema} or None


def choose_media_type(accept: str, offers: Sequence[str], way_out: str = "") -> str:
    """Return the media type of some that an Accept header prefers; of equals, the first.

    Parameters
    ----------
    accept : str
    offers : sequence of str
    way_out : str
        Ends the error.

    Raises
    ------
    Refusal
        406 when it accepts none.
    """
    best, best_quality = None, 0.0
    for offered in offers:
        quality = _quality(offered, accept)
        if quality > best_quality:
            best, best_quality = offered, quality
    if best is None:
        allowed = ", ".join(offers)
        detail = f"Accept must allow one of {allowed}, got {accept[:200]!r}{way_out}"
        raise Refusal(406, detail, VARY)
    return best


def _quality(offered: str, accept: str) -> float:
    """Return the q value of the most specific matching range; 0 if none matches."""
    best = (-1, 0.0)
    for part in (accept or "*/*").split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind = offered.partition("/")[0]
        rank = {offered: 2, f"{kind}/*": 1, "*/*": 0}.get(media_range)
        if rank is None:
            continue
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            best = max(best, (rank, min(float(quality), 1.0)))
        except ValueError:
            continue
    return best[1]


def answer_with(
    clip: Clip, *, media_type: str, sample_format: SampleFormat, warnings: Sequence[str]
) -> Response:
    """Return a clip as a 200 answer of the media type that was chosen."""
    if media_type == JSON:
        return json_response(clip_body(clip, sample_format, warnings), headers=VARY)
    messages = [*warnings, *sound_warnings(clip, media_type, sample_format)]
    headers = sound_headers(clip.request, clip.duration_s, messages)
    return Response(encode(clip, media_type, sample_format), headers=headers, media_type=media_type)


def sound_headers(
    request: GenerationRequest, duration_s: float, messages: Sequence[str]
) -> dict[str, str]:
    """Return the headers that describe a clip whose sound is the body."""
    headers = {
        **VARY,
        "MusicGen-Seed": str(request.seed),
        "MusicGen-Model": _in_ascii(str(request.model)),
        "MusicGen-Duration": f"{duration_s:g}",
    }
    if messages:
        headers["MusicGen-Warnings"] = _in_ascii("; ".join(messages))
    return headers


def _in_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def clip_body(clip: Clip, sample_format: SampleFormat, warnings: Sequence[str]) -> dict[str, Any]:
    """Return a clip as the fields of the documented JSON answer."""
    codes = clip.codes_bytes()
    return {
        "audio_base64": base64.b64encode(clip.wav_bytes(sample_format)).decode("ascii"),
        "sample_rate": clip.sample_rate,
        "duration": clip.duration_s,
        "seed": clip.request.seed,
        "model": clip.request.model,
        "warnings": [*warnings, *sound_warnings(clip, "audio/wav", sample_format)],
        "elapsed_s": round(clip.elapsed_s, 6),
        "provenance": asdict(clip.provenance),
        "codes_base64": None if codes is None else base64.b64encode(codes).decode("ascii"),
    }


def sound_warnings(clip: Clip, media_type: str, sample_format: SampleFormat) -> list[str]:
    """Say what of a prompt the model did not understand, and whether an answer is clipped."""
    note = conversion_note(clip.provenance)
    warnings = [note] if note else []
    unread = clip.provenance.details.get(PROMPT_UNREAD)
    if unread:
        warnings.append(f"the model's text encoder does not know {unread} in the prompt")
    warnings += unused_format(media_type, sample_format)
    peak = float(np.abs(clip.samples).max(initial=0.0))
    if peak > 1 and not (SOUNDS[media_type] == "WAV" and sample_format == "FLOAT"):
        warnings.append(
            f"the sound has a peak of {peak:.3g} and is clipped at full scale; the WAV of "
            "sample_format=FLOAT has it as it was made"
        )
    return warnings


def unused_format(media_type: str, sample_format: SampleFormat) -> list[str]:
    """Say if the sample format has no effect in a media type."""
    if sample_format == "FLOAT" and SOUNDS.get(media_type, "WAV") != "WAV":
        return [f"sample_format does nothing: {media_type} has no FLOAT, as WAV alone has"]
    return []


def encode(clip: Clip, media_type: str, sample_format: SampleFormat) -> bytes:
    """Encode a clip at its own level; all formats but float WAV clip at full scale."""
    if SOUNDS[media_type] == "WAV":
        return clip.wav_bytes(sample_format)
    buffer = io.BytesIO()
    playable = np.clip(clip.samples.T, -1.0, 1.0)  # (n, channels)
    kind = {"samplerate": clip.sample_rate, "channels": playable.shape[1]}
    with soundfile.SoundFile(buffer, "w", format=SOUNDS[media_type], **kind) as file:
        for start in range(0, len(playable), clip.sample_rate):  # libvorbis overflows its stack
            file.write(playable[start : start + clip.sample_rate])  # on long clips in one piece
    return buffer.getvalue()
