"""`Clip` and `Failure`: the results of a request, and the encoding of samples as WAV bytes."""

from __future__ import annotations

import io
import math
import struct
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import AfterValidator, ConfigDict, StringConstraints

from musicgen_lab.errors import packages_needed
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import SourceCodes

if TYPE_CHECKING:
    from IPython.display import Audio

Samples = npt.NDArray[np.float32]

CHANNELS_MAX = 2
SAMPLE_RATE_MIN_HZ, SAMPLE_RATE_MAX_HZ = 8_000, 192_000
LENGTH_TOLERANCE_S = 0.1  # a few of the codec's frames: models make whole ones
PROMPT_UNREAD = "prompt_unread"  # the detail that names what a text encoder does not know
BEGIN_CONVERTED = "begin_with_converted"  # how the sound to begin with was converted
CODEC = "codec"  # the detail that identifies the codec of a clip's codes
MESSAGE_MAX_CHARACTERS = 2000
NAME_MAX_CHARACTERS = 200

Name = Annotated[str, StringConstraints(max_length=NAME_MAX_CHARACTERS, pattern=r"^[^\x00-\x1f]+$")]
Detail = Annotated[str, StringConstraints(max_length=1000)] | bool | int | float | None


def _numbers_where_numbers_are_read(details: dict[str, Any]) -> dict[str, Any]:
    """Reject texts and negative numbers for costs, which are added up in tables."""
    for name in ("gpu_s", "cost_usd"):
        value = details.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} must be a number of at least 0, got {short(value)}")
    if not isinstance(details.get("gpu", ""), str):
        raise ValueError(f"gpu must be text, got {short(details['gpu'])}")
    return details


@pydantic.dataclasses.dataclass(
    frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
)
class Provenance:
    """The engine, device and versions behind a clip: enough to reproduce it.

    Types and lengths are checked, since most provenance is read from a file or a service.

    Attributes
    ----------
    engine : str
        Name and version of the engine, such as "audiocraft 1.3.0".
    device : str
        Where the model ran, such as "cpu" or "cuda (NVIDIA A10)".
    dtype : str
        The model's precision, such as "float32".
    lab_version : str
        The version of this package.
    details : dict
        Everything else that the samples may depend on, such as torch's version; up to 100 plain
        values by name.

    Raises
    ------
    pydantic.ValidationError
        A ValueError, when a field is of another type, too long, or not finite.
    """

    engine: Name
    device: Name
    dtype: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
    lab_version: Name
    details: Annotated[
        dict[Name, Detail],
        pydantic.Field(max_length=100),
        AfterValidator(_numbers_where_numbers_are_read),
    ] = field(default_factory=dict)


def conversion_note(provenance: Provenance | None) -> str:
    """Say how the sound that a clip begins with was converted; empty if it was not."""
    converted = provenance.details.get(BEGIN_CONVERTED) if provenance is not None else None
    return f"the sound that begin_with gives was {converted}" if converted else ""


@dataclass(frozen=True, eq=False)
class Clip:
    """The audio of one request, exactly as the model made it.

    Attributes
    ----------
    request : GenerationRequest
        The request that made it, with its seed and the model's revision.
    samples : np.ndarray [shape=(channels, n), dtype=float32]
        Full scale is 1.0; never normalised, never clipped, so peaks may exceed it.
    sample_rate : int
        In Hz.
    provenance : Provenance
        The engine, device and versions that made it.
    elapsed_s : float
        Seconds it took to make: in a batch, its share of every step and of decoding.
    codes : np.ndarray [shape=(K, frames)] or None
        The codec's codes that the samples were decoded from, if they are known.
    """

    request: GenerationRequest
    samples: Samples
    sample_rate: int
    provenance: Provenance
    elapsed_s: float
    codes: npt.NDArray[np.integer[Any]] | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(
                "samples must be float32 of shape (channels, n), "
                f"got {self.samples.dtype} of shape {self.samples.shape}"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds, within one of the model's frames of the requested duration."""
        return float(self.samples.shape[1] / self.sample_rate)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the samples, the codes, and what the clip begins with."""
        parts = (self.samples, self.codes, self.request.begin_with)
        return sum(part.nbytes for part in parts if part is not None)

    def codes_bytes(self) -> bytes | None:
        """Return the codes as a file that `SourceCodes.from_bytes` reads; None without codes."""
        codec = self.provenance.details.get(CODEC)
        if self.codes is None or not isinstance(codec, str):
            return None
        frame_rate = self.codes.shape[1] * self.sample_rate / self.samples.shape[1]
        return SourceCodes(self.codes.astype(np.uint16), codec, frame_rate).to_bytes()

    def wav_bytes(self, subtype: Literal["FLOAT", "PCM_16"] = "FLOAT") -> bytes:
        """Encode the samples as a WAV file.

        Parameters
        ----------
        subtype : {"FLOAT", "PCM_16"}
            "FLOAT" keeps every sample unchanged. "PCM_16" is for players: samples beyond full
            scale are clipped.

        Returns
        -------
        bytes
            The same bytes for the same samples.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> clip = results.clip(results.frame["key"][0])
        >>> clip.wav_bytes()[:4], clip.duration_s
        (b'RIFF', 1.0)
        """
        return encode_wav(self.samples, self.sample_rate, subtype)

    @packages_needed("a player")
    def play(self) -> Audio:
        """Return a player for a notebook, at the clip's own level.

        IPython's player normalises arrays to full scale, so it gets a WAV file here.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> player = results.clip(results.frame["key"][0]).play()
        """
        from IPython.display import Audio

        return Audio(data=self.wav_bytes("PCM_16"))


@dataclass(frozen=True)
class Failure:
    """A request that ended in an error.

    Attributes
    ----------
    request : GenerationRequest
        The request that failed, with its seed and the model's revision.
    error_type : str
        The error's class, such as "OutOfMemoryError".
    message : str
        The error's message.
    elapsed_s : float
        Seconds spent on it.
    traceback : str
        The traceback, for the log; empty if unknown.
    """

    request: GenerationRequest
    error_type: str
    message: str
    elapsed_s: float = 0.0
    traceback: str = field(default="", compare=False, repr=False)

    @classmethod
    def from_error(
        cls, request: GenerationRequest, error: Exception, elapsed_s: float = 0.0
    ) -> Failure:
        """Return a request's failure for an error, with the error's traceback.

        Parameters
        ----------
        request : GenerationRequest
        error : Exception
        elapsed_s : float
            Seconds spent on it.

        Examples
        --------
        >>> from musicgen_lab import Failure, GenerationRequest
        >>> request = GenerationRequest(prompt="jazzy piano solo")
        >>> Failure.from_error(request, MemoryError("no room")).error_type
        'MemoryError'
        """
        lines = traceback.format_exception(error)
        return cls(request, type(error).__name__, str(error), elapsed_s, "".join(lines))


def checked(result: Clip | Failure) -> Clip | Failure:
    """Validate a result: a clip that does not match its request becomes a failure.

    Every result from another process or machine is validated here, and every one before it is
    stored.

    Returns
    -------
    Clip or Failure
        The clip itself; or a failure of type "InvalidClip" with the reason. The texts of a failure
        are truncated to a length that a table can show.
    """
    valid = math.isfinite(result.elapsed_s) and result.elapsed_s >= 0
    elapsed_s = float(result.elapsed_s) if valid else 0.0
    if isinstance(result, Clip):
        fault = clip_fault(result.request, result.samples, result.sample_rate)
        if fault is None:
            return replace(result, elapsed_s=elapsed_s)
        result = Failure(result.request, "InvalidClip", fault)
    return replace(
        result,
        error_type=result.error_type[:100],
        message=result.message[:MESSAGE_MAX_CHARACTERS],
        elapsed_s=elapsed_s,
    )


def clip_fault(request: GenerationRequest, samples: Samples, sample_rate: int) -> str | None:
    """Return why samples cannot be the clip of a request; None if they can.

    Parameters
    ----------
    request : GenerationRequest
    samples : np.ndarray [shape=(channels, n), dtype=float32]
    sample_rate : int
        In Hz.
    """
    channels, frames = samples.shape
    fault = shape_fault(request, channels, frames, sample_rate)
    if fault is None and not np.isfinite(samples).all():
        fault = "its samples are not all finite numbers"
    return fault


def shape_fault(
    request: GenerationRequest, channels: int, frames: int, sample_rate: int
) -> str | None:
    """Return why audio of a shape cannot be the clip of a request; None if it can.

    Parameters
    ----------
    request : GenerationRequest
    channels : int
    frames : int
        Samples per channel.
    sample_rate : int
        In Hz.
    """
    if not 1 <= channels <= CHANNELS_MAX:
        return f"it has {channels:,} channels, not 1 or 2"
    if not SAMPLE_RATE_MIN_HZ <= sample_rate <= SAMPLE_RATE_MAX_HZ:
        limits = f"{SAMPLE_RATE_MIN_HZ:,} to {SAMPLE_RATE_MAX_HZ:,}"
        return f"its sample rate is {sample_rate:,} Hz, outside {limits} Hz"
    lasts_s, wanted_s = frames / sample_rate, request.sound_s
    if wanted_s is None:  # the length of the source is not known here
        is_wanted = LENGTH_TOLERANCE_S < lasts_s < request.duration
        return None if is_wanted else f"it lasts {lasts_s:.4g} s, and the rest of a clip is shorter"
    if abs(lasts_s - wanted_s) > LENGTH_TOLERANCE_S:
        return f"it lasts {lasts_s:.4g} s, not {wanted_s:.4g} s"
    return None


def encode_wav(samples: Samples, sample_rate: int, subtype: str = "FLOAT") -> bytes:
    """Encode samples (channels, n) as WAV; equal samples give equal bytes."""
    from scipy.io import wavfile  # soundfile stamps float files with the time of writing

    buffer = io.BytesIO()
    wavfile.write(buffer, sample_rate, _wav_data(samples, subtype))
    return buffer.getvalue()


def wav_header(channels: int, sample_rate: int, length: int, subtype: str = "FLOAT") -> bytes:
    """Return what comes before the samples in a WAV file of (channels, length), as `encode_wav`."""
    header = bytearray(encode_wav(np.zeros((channels, 0), np.float32), sample_rate, subtype))
    data_bytes = length * channels * (2 if subtype == "PCM_16" else 4)
    fact = header.find(b"fact")  # in float files: the number of samples per channel
    if fact >= 0:
        struct.pack_into("<I", header, fact + 8, length)
    struct.pack_into("<I", header, 4, len(header) - 8 + data_bytes)
    struct.pack_into("<I", header, len(header) - 4, data_bytes)
    return bytes(header)


def wav_samples(samples: Samples, subtype: str = "FLOAT") -> bytes:
    """Return samples (channels, n) as they are in a WAV file after its header."""
    return _wav_data(samples, subtype).tobytes()


def _wav_data(samples: Samples, subtype: str) -> npt.NDArray[Any]:
    if subtype == "PCM_16":
        data: npt.NDArray[Any] = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    elif subtype == "FLOAT":
        data = samples
    else:
        raise ValueError(f"subtype must be FLOAT or PCM_16, got {subtype!r}")
    return np.ascontiguousarray(data.T)


def decode_audio(data: bytes) -> tuple[Samples, int]:
    """Decode the bytes of a WAV, FLAC, Ogg or MP3 file.

    Returns
    -------
    samples : np.ndarray [shape=(channels, n), dtype=float32]
    sample_rate : int
        In Hz, of the file: nothing is resampled.
    """
    import soundfile

    samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), int(sample_rate)
