"""How a result travels between two processes: plain values and float WAV bytes, nothing pickled.

A service and a notebook may have different versions of this package. The format's number is what
both must share, and a message of another format is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from musicgen_lab.clip import Clip, Failure, Provenance, decode_audio
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest

FORMAT = 1


def pack(result: Clip | Failure) -> dict[str, Any]:
    """Return a result as plain values; the samples as a float WAV file's bytes, exact."""
    message: dict[str, Any] = {
        "format": FORMAT,
        "request": result.request.model_dump(),
        "elapsed_s": result.elapsed_s,
    }
    if isinstance(result, Failure):
        error = {"error_type": result.error_type, "message": result.message}
        return {**message, "status": "failed", **error}
    made_by = asdict(result.provenance)
    return {**message, "status": "ok", "wav": result.wav_bytes(), "provenance": made_by}


def unpack(message: Mapping[str, Any], request: GenerationRequest) -> Clip | Failure:
    """Return the result that a message holds.

    Parameters
    ----------
    message : Mapping
        Made by `pack`, maybe of another version of this package.
    request : GenerationRequest
        The resolved request it answers.

    Raises
    ------
    BackendUnavailable
        When it is of another format, or answers another request.
    """
    check_format(message.get("format"))
    if message["request"] != request.model_dump():
        raise BackendUnavailable(
            f"the service answered another request than {request.key()[:12]}…; "
            "its answer was dropped"
        )
    if message["status"] == "failed":
        return Failure(request, message["error_type"], message["message"], message["elapsed_s"])
    samples, sample_rate = decode_audio(message["wav"])
    made_by = Provenance(**message["provenance"])
    return Clip(request, samples, sample_rate, made_by, message["elapsed_s"])


def check_format(found: Any) -> None:
    """Refuse another format than this version's.

    Raises
    ------
    BackendUnavailable
        The message says what to type.
    """
    if found != FORMAT:
        raise BackendUnavailable(
            f"the service speaks format {found}, musicgen-lab {version('musicgen-lab')} here "
            f"speaks format {FORMAT}; bring both to one version: `modal deploy service/app.py` "
            "from this one, or `pip install` the service's"
        )
