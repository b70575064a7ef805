"""`Clip` and `Failure`: what comes back for a request, and how samples become WAV bytes."""

from __future__ import annotations

import io
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from IPython.display import Audio

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Provenance:
    """Who made a clip, and with what: enough to make it again.

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
        Whatever else the clip's numbers may depend on, such as torch's version.
    """

    engine: str
    device: str
    dtype: str
    lab_version: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Clip:
    """The sound that came back for one request, exactly as the model made it.

    Attributes
    ----------
    request : GenerationRequest
        The request that made it, with its seed and the model's revision.
    samples : np.ndarray [shape=(channels, n), dtype=float32]
        Full scale is 1.0; never normalised, never clipped, so peaks may exceed it.
    sample_rate : int
        In Hz.
    provenance : Provenance
        Who made it, and with what.
    elapsed_s : float
        Seconds it took to make: in a batch, its share of every step and of decoding.
    """

    request: GenerationRequest
    samples: Samples
    sample_rate: int
    provenance: Provenance
    elapsed_s: float

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(
                "samples must be float32 of shape (channels, n), "
                f"got {self.samples.dtype} of shape {self.samples.shape}"
            )

    @property
    def duration_s(self) -> float:
        """Length in seconds, within one of the model's frames of the duration asked for."""
        return float(self.samples.shape[1] / self.sample_rate)

    def wav_bytes(self, subtype: Literal["FLOAT", "PCM_16"] = "FLOAT") -> bytes:
        """Encode the samples as a WAV file.

        Parameters
        ----------
        subtype : {"FLOAT", "PCM_16"}
            "FLOAT" keeps every sample as it is. "PCM_16" is for players: samples beyond full
            scale are clipped.

        Returns
        -------
        bytes
            The same bytes for the same samples.
        """
        return encode_wav(self.samples, self.sample_rate, subtype)

    def play(self) -> Audio:
        """Return a player for a notebook, at the clip's own level.

        IPython's own player raises every clip to full scale when it is given an array; it is
        given a finished file here.
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
        What it said.
    elapsed_s : float
        Seconds spent on it.
    traceback : str
        Where it was raised, for the log of whoever runs the model; empty where that is not known.
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
        """Return the failure that an error is for a request, with the error's traceback."""
        lines = traceback.format_exception(error)
        return cls(request, type(error).__name__, str(error), elapsed_s, "".join(lines))


def encode_wav(samples: Samples, sample_rate: int, subtype: str = "FLOAT") -> bytes:
    """Encode samples (channels, n) as WAV bytes that are the same for the same samples."""
    from scipy.io import wavfile  # soundfile stamps float files with the time of writing

    if subtype == "PCM_16":
        data: npt.NDArray[Any] = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    elif subtype == "FLOAT":
        data = samples
    else:
        raise ValueError(f"subtype must be FLOAT or PCM_16, got {subtype!r}")
    buffer = io.BytesIO()
    wavfile.write(buffer, sample_rate, np.ascontiguousarray(data.T))
    return buffer.getvalue()


def decode_audio(data: bytes) -> tuple[Samples, int]:
    """Decode the bytes of a WAV, FLAC, Ogg or MP3 file.

    Returns
    -------
    samples : np.ndarray [shape=(channels, n), dtype=float32]
    sample_rate : int
        In Hz, as the file has it: nothing is resampled.
    """
    import soundfile

    samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), int(sample_rate)
