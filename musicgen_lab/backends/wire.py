"""Serialization of results between processes: plain values and the bytes of a float WAV file.

A service and its caller may have other packages, and other versions of this one. So a message
consists of builtin values only, which every Python can read, and a format number, which must
be equal on both sides; a message of another format is rejected.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import soundfile

from musicgen_lab.clip import (
    LENGTH_TOLERANCE_S,
    Clip,
    Failure,
    Provenance,
    checked,
    decode_audio,
    encode_wav,
    shape_fault,
)
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.formatting import short
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Codes, SourceCodes
from musicgen_lab.streaming import SoundChunk
from musicgen_lab.version import VERSION

FORMAT = 1
DIGEST_CHARACTERS = 64
PROMPTS_MAX = 100  # that are read in one call
TEXT_MAX_CHARACTERS = 20_000  # of a message or a traceback
PLAIN = (str, int, float, bool, bytes, type(None))


def pack(result: Clip | Failure) -> dict[str, Any]:
    """Return a result as plain values, with the exact samples as a float WAV file's bytes.

    Raises
    ------
    TypeError
        When the result contains anything else, such as a subclass of str in its provenance.
    """
    message: dict[str, Any] = {
        "format": FORMAT,
        "request": result.request.model_dump(),
        "elapsed_s": result.elapsed_s,
    }
    if isinstance(result, Failure):
        error = {"error_type": result.error_type, "message": result.message}
        return plain({**message, "status": "failed", **error, "traceback": result.traceback})
    made_by = asdict(result.provenance)
    message |= {"status": "ok", "wav": result.wav_bytes(), "provenance": made_by}
    codes = result.codes_bytes()
    return plain(message if codes is None else {**message, "codes": codes})


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """Check that any Python can read a message, and return it unchanged.

    Modal pickles what a function returns. A value of a library's type, even a subclass of str,
    could be read only where that library is installed.

    Raises
    ------
    TypeError
        Naming the path of the first value that is not exactly a str, int, float, bool, None,
        bytes, or a list or dict of these.
    """
    _check_plain(message, "message")
    return message


def _check_plain(value: Any, path: str) -> None:
    if type(value) is dict:
        for key, item in value.items():
            _check_plain(key, f"the key {key!r} of {path}")
            _check_plain(item, f"{path}[{key!r}]")
    elif type(value) is list:
        for index, item in enumerate(value):
            _check_plain(item, f"{path}[{index}]")
    elif type(value) not in PLAIN:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{path} is a {kind}, which a reader without that type cannot read; "
            "convert it to a builtin type where it is made"
        )


def unpack(message: Mapping[str, Any], request: GenerationRequest) -> Clip | Failure:
    """Return the result in a message; an invalid message becomes a failure.

    Parameters
    ----------
    message : Mapping
        Made by `pack`, possibly of another version of this package, or by an untrusted service.
    request : GenerationRequest
        The resolved request that it answers.

    Returns
    -------
    Clip or Failure
        A failure of type "InvalidAnswer" where the message is not the result of this request, and
        as `clip.checked` has it where its clip cannot be.

    Raises
    ------
    BackendUnavailable
        When it is of another format.
    """
    check_format(message.get("format"))
    try:
        return checked(_read(message, request))
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        return Failure(
            request,
            "InvalidAnswer",
            f"the answer of the service was dropped: {type(error).__name__}: {reason}",
        )


def _read(message: Mapping[str, Any], request: GenerationRequest) -> Clip | Failure:
    if message["request"] != request.model_dump():
        raise ValueError("it answers another request")
    elapsed_s = float(message["elapsed_s"])
    if message["status"] == "failed":
        texts = (message["error_type"], message["message"], message.get("traceback", ""))
        error_type, text, traceback = (str(value)[:TEXT_MAX_CHARACTERS] for value in texts)
        return Failure(request, error_type, text, elapsed_s, traceback)
    made_by = Provenance(**message["provenance"])
    wav = message["wav"]
    info = soundfile.info(io.BytesIO(wav))  # before anything is decoded: it may claim any size
    fault = shape_fault(request, info.channels, info.frames, info.samplerate)
    if fault is not None:
        return Failure(request, "InvalidClip", fault, elapsed_s)
    samples, sample_rate = decode_audio(wav)
    codes = _read_codes(message.get("codes"), info.frames / info.samplerate)
    return Clip(request, samples, sample_rate, made_by, elapsed_s, codes)


def _read_codes(content: bytes | None, lasts_s: float) -> Codes | None:
    """Return the codes of a sound of a length, if there are any.

    Raises
    ------
    ValueError
        When they are something else, or of another length.
    """
    if content is None:
        return None
    stored = SourceCodes.from_bytes(content)
    if abs(stored.duration_s - lasts_s) > LENGTH_TOLERANCE_S:
        raise ValueError(f"its codes last {stored.duration_s:.4g} s, its sound {lasts_s:.4g} s")
    return stored.codes


def pack_chunk(chunk: SoundChunk) -> dict[str, Any]:
    """Return a chunk as plain values, with its exact samples as a float WAV file's bytes."""
    return plain(
        {
            "wav": encode_wav(chunk.samples, chunk.sample_rate),
            "steps_done": chunk.steps_done,
            "steps": chunk.steps,
            "total_samples": chunk.total_samples,
        }
    )


def unpack_chunk(message: Mapping[str, Any], request: GenerationRequest, sent: int) -> SoundChunk:
    """Return the chunk in a message.

    Parameters
    ----------
    message : Mapping
        Made by `pack_chunk`, possibly by an untrusted service.
    request : GenerationRequest
        Resolved.
    sent : int
        Samples per channel in the chunks before it.

    Raises
    ------
    KeyError, TypeError, ValueError
        When it cannot be the next part of the request's clip.
    """
    wav, total = message["wav"], int(message["total_samples"])
    steps_done, steps = int(message["steps_done"]), int(message["steps"])
    try:
        info = soundfile.info(io.BytesIO(wav))  # before anything is decoded: it may claim any size
    except soundfile.LibsndfileError as error:
        raise ValueError(str(error)) from None
    fault = shape_fault(request, info.channels, total, info.samplerate)
    if fault is not None:
        raise ValueError(fault)
    if sent + info.frames > total or not 0 <= steps_done <= steps:
        raise ValueError("it has more than the whole clip")
    samples, sample_rate = decode_audio(wav)
    if not np.isfinite(samples).all():
        raise ValueError("its samples are not all finite numbers")
    return SoundChunk(samples, sample_rate, sent / sample_rate, steps_done, steps, total)


def pack_prompts(prompts: Iterable[PromptTokens]) -> list[dict[str, Any]]:
    """Return what a text encoder reads of prompts as plain values."""
    return [{"digest": one.digest, "unread": list(one.unread)} for one in prompts]


def unpack_prompts(messages: Any, count: int) -> list[PromptTokens]:
    """Return what a text encoder reads of prompts.

    Parameters
    ----------
    messages : list of dict
        Made by `pack_prompts`, possibly by an untrusted service.
    count : int
        Of the prompts.

    Raises
    ------
    BackendUnavailable
        When it is something else.
    """
    try:
        read = [
            PromptTokens(
                str(one["digest"])[:DIGEST_CHARACTERS],
                tuple(short(word, str) for word in one["unread"]),
            )
            for one in messages
        ]
    except (KeyError, TypeError):
        read = []
    if len(read) != count:
        raise BackendUnavailable(
            "the service did not say what its model reads of the prompts; is it a MusicGen Lab "
            "service of this version?"
        )
    return read


def check_format(format_number: Any) -> None:
    """Reject a format other than this version's.

    Raises
    ------
    BackendUnavailable
        The message says which command to run.
    """
    if format_number != FORMAT:
        raise BackendUnavailable(
            f"the service uses format {format_number}, musicgen-lab {VERSION} here "
            f"uses format {FORMAT}; bring both to one version: `modal deploy service/app.py` "
            "from this one, or `pip install` the service's"
        )
