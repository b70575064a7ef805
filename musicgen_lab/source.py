"""`Source`: a sound, or a clip's codes, that a clip begins with; it is addressed by its content.

A source is the content of a file: a sound as WAV, FLAC, MP3 or Ogg, or the codes of a clip, as run
folders keep them. It is read and checked once, and only its digest is part of a request: the same
content is the same source under any path, name or address.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from musicgen_lab.errors import InvalidRequest

SOURCE_MAX_BYTES = 100 * 1024**2
SOURCE_MIN_S, SOURCE_MAX_S = 0.1, 600.0
SOURCE_CHANNELS_MAX = 2
SAMPLES_MAX = 60_000_000  # of both channels: 600 s of stereo at 48 kHz, 230 MB when decoded
RATE_MIN_HZ, RATE_MAX_HZ = 8_000, 192_000
SILENT_PEAK = 1e-4  # of full scale, -80 dB: there is nothing to continue
PEAK_S = 0.1  # seconds that each peak is of
BLOCK_S = 10.0  # seconds that are decoded at once
ROUNDING_S = 1e-6  # that a length which was computed may be off by
SOUND_FORMATS = {"WAV": "wav", "WAVEX": "wav", "FLAC": "flac", "MP3": "mp3", "OGG": "ogg"}
CODES_SUFFIX = "npz"
DIGEST = re.compile(r"[0-9a-f]{64}")

CODES_MAX_BYTES = 4_000_000  # of a file: 300 s of 64 codebooks
CODEBOOKS_MAX = 64
CODEC_ID_MAX_CHARACTERS = 64
FRAME_RATE_MIN_HZ, FRAME_RATE_MAX_HZ = 1.0, 1000.0

Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class SourceCodes:
    """The codes of a clip, and the codec that they belong to.

    Attributes
    ----------
    codes : np.ndarray [shape=(K, frames), dtype=uint16]
        The codebooks of two channels are interleaved.
    codec : str
        Identity of the codec; codes mean nothing to another one.
    frame_rate : float
        Frames per second.
    """

    codes: Codes
    codec: str
    frame_rate: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.codes.shape[1] / self.frame_rate)

    def to_bytes(self) -> bytes:
        """Return the content of a NumPy file (.npz); equal codes give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, codes=self.codes, codec=np.array(self.codec), frame_rate=self.frame_rate
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` made, from an untrusted file.

        Raises
        ------
        ValueError
            When it is anything else.
        """
        if len(content) > CODES_MAX_BYTES:
            raise ValueError("it is too large to be the codes of a clip")
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except Exception as error:
            raise ValueError("it holds no codes of a clip") from error
        if size > CODES_MAX_BYTES:
            raise ValueError("it is too large to be the codes of a clip")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                codes, codec, frame_rate = (
                    stored[name] for name in ("codes", "codec", "frame_rate")
                )
        except Exception as error:  # of a damaged archive, which may be any
            raise ValueError("it holds no codes of a clip") from error
        if not all(isinstance(each, np.ndarray) for each in (codes, codec, frame_rate)):
            raise ValueError("it holds no codes of a clip")
        is_codes = codes.dtype == np.uint16 and codes.ndim == 2 and codes.size > 0
        is_named = codec.dtype.kind == "U" and 1 <= len(str(codec)) <= CODEC_ID_MAX_CHARACTERS
        is_rate = frame_rate.shape == () and frame_rate.dtype == np.float64
        if not (is_codes and is_named and is_rate and len(codes) <= CODEBOOKS_MAX):
            raise ValueError("it holds no codes of a clip")
        if not FRAME_RATE_MIN_HZ <= float(frame_rate) <= FRAME_RATE_MAX_HZ:
            raise ValueError(f"its frame rate is {float(frame_rate):g} Hz")
        return cls(codes, str(codec), float(frame_rate))


@dataclass(frozen=True)
class Source:
    """A sound or the codes of a clip, by the digest of its content.

    Sources with the same content are equal. One that was read from a request or a record has its
    digest alone, until its content is looked up.

    Attributes
    ----------
    digest : str
        SHA-256 of the content.
    content : bytes or None
        Of a sound file or of the file with a clip's codes; None where it is not known here.
    name : str
        What people call it, such as its file's name. It is part of no key.
    duration_s : float or None
        Length in seconds, as are the following None where the content is not known.
    sample_rate : int or None
        In Hz; None for codes.
    channels : int or None
        None for codes.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from scipy.io import wavfile
    >>> from musicgen_lab.source import Source
    >>> file = io.BytesIO()
    >>> wavfile.write(file, 32000, np.sin(np.arange(64000) / 20).astype(np.float32))
    >>> source = Source.of_bytes(file.getvalue(), "hum.wav")
    >>> source.duration_s, source.sample_rate, len(source.digest)
    (2.0, 32000, 64)
    """

    digest: str
    content: bytes | None = field(default=None, compare=False, repr=False)
    name: str = field(default="", compare=False)
    duration_s: float | None = field(default=None, compare=False)
    sample_rate: int | None = field(default=None, compare=False)
    channels: int | None = field(default=None, compare=False)
    suffix: str = field(default="", compare=False, repr=False)
    peaks: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of_bytes(cls, content: bytes, name: str = "the source") -> Self:
        """Return the source of a file's content, which is decoded once to check it.

        Parameters
        ----------
        content : bytes
            Of a WAV, FLAC, MP3 or Ogg file with 1 or 2 channels, 0.1 to 600 seconds and up to
            100 MiB; or of a clip's codes in a run folder.
        name : str
            For messages and reports.

        Raises
        ------
        InvalidRequest
            When it is none of these, is damaged, or is silent.
        """
        if len(content) > SOURCE_MAX_BYTES:
            raise _refuse(
                name,
                f"has {len(content):,} bytes, more than {SOURCE_MAX_BYTES:,}; cut out the part "
                "to begin with, or store it as FLAC or MP3",
            )
        digest = hashlib.sha256(content).hexdigest()
        if content.startswith(b"PK"):
            try:
                codes = SourceCodes.from_bytes(content)
            except ValueError as error:
                raise _refuse(name, f"cannot be begun with: {error}") from None
            return cls(digest, content, name, codes.duration_s, suffix=CODES_SUFFIX)
        with _opened(content, name) as file:
            peaks, frames = [], 0
            for block in _blocks(file, name, seconds=PEAK_S):  # never the whole sound at once
                peaks.append(float(np.abs(block).max()))
                frames += len(block)
            if max(peaks) < SILENT_PEAK:
                raise _refuse(name, "is silent, so that there is nothing to continue")
            return cls(
                digest,
                content,
                name,
                duration_s=frames / file.samplerate,
                sample_rate=file.samplerate,
                channels=file.channels,
                suffix=SOUND_FORMATS[file.format],
                peaks=tuple(peaks),
            )

    @property
    def nbytes(self) -> int:
        """Bytes of the content that is here."""
        return len(self.content or b"")

    @property
    def is_codes(self) -> bool:
        """Whether the content is a clip's codes rather than a sound."""
        return self.suffix == CODES_SUFFIX

    def codes(self) -> SourceCodes:
        """Return the codes of a source that `is_codes`."""
        return SourceCodes.from_bytes(self.read())

    def sound(self) -> tuple[npt.NDArray[np.float32], int]:
        """Decode a source that is a sound.

        Returns
        -------
        samples : np.ndarray [shape=(channels, n), dtype=float32]
        sample_rate : int
            In Hz, of the file: nothing is resampled.
        """
        with _opened(self.read(), self.name) as file:
            samples = np.concatenate(list(_blocks(file, self.name, seconds=BLOCK_S)))
            return np.ascontiguousarray(samples.T), int(file.samplerate)

    def read(self) -> bytes:
        """Return the content.

        Raises
        ------
        InvalidRequest
            When only the digest is known here.
        """
        if self.content is None:
            raise InvalidRequest(
                f"the content of begin_with {self.digest[:12]}… is not known here; give the sound "
                "itself",
                field="begin_with",
                value=self.digest,
            )
        return self.content

    def check_part(self, begin_at: float, begin_s: float | None) -> None:
        """Raise unless a part lies within the source and is not silent.

        Parameters
        ----------
        begin_at : float
            Where the part starts, in seconds.
        begin_s : float or None
            Its length in seconds; None for all that follows.

        Raises
        ------
        InvalidRequest
        """
        if self.duration_s is None:
            return
        if begin_at > self.duration_s - SOURCE_MIN_S:
            raise InvalidRequest(
                f"begin_at must leave at least {SOURCE_MIN_S:g} s of {self.name}, which lasts "
                f"{self.duration_s:.4g} s, got {begin_at:g}",
                field="begin_at",
                value=begin_at,
            )
        end_s = self.duration_s if begin_s is None else begin_at + begin_s
        if end_s > self.duration_s + (ROUNDING_S if self.is_codes else PEAK_S):
            raise InvalidRequest(
                f"begin_s must be at most {self.duration_s - begin_at:.4g} seconds after begin_at "
                f"{begin_at:g} of {self.name}, which lasts {self.duration_s:.4g} s, got "
                f"{begin_s:g}",
                field="begin_s",
                value=begin_s,
            )
        if self.peaks:
            part = self.peaks[int(begin_at / PEAK_S) : math.ceil(end_s / PEAK_S)]
            if max(part, default=0.0) < SILENT_PEAK:
                raise InvalidRequest(
                    f"{self.name} is silent from {begin_at:g} to {end_s:.4g} s, so that there is "
                    "nothing to continue; choose another part with begin_at and begin_s",
                    field="begin_at",
                    value=begin_at,
                )


def _refuse(name: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {fault}", field="begin_with", value=name)


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[Any]:
    """Open an untrusted sound file of a known format, whose header is within the limits."""
    import soundfile

    known = "a source is a WAV, FLAC, MP3 or Ogg file"
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.format not in SOUND_FORMATS:
                article = "an" if file.format[0] in "AEIOU" else "a"
                raise _refuse(name, f"is {article} {file.format} file; {known}")
            _check_header(name, file)
            yield file
    except soundfile.SoundFileError:
        raise _refuse(name, f"holds no sound that can be read; {known}") from None


def _blocks(file: Any, name: str, *, seconds: float) -> Iterator[npt.NDArray[np.float32]]:
    """Yield blocks (n, channels) to the end that the header declares, which must be there."""
    frames, rate = 0, file.samplerate
    size = max(1, round(seconds * rate))
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise _refuse(name, "has samples that are not finite numbers")
        frames += len(block)
        yield block
    if frames < file.frames:
        raise _refuse(
            name,
            f"is cut short: it declares {file.frames / rate:.4g} s and has {frames / rate:.4g} s",
        )


def _check_header(name: str, file: Any) -> None:
    """Raise for a sound file that is too long, too short, or of too many channels."""
    if not RATE_MIN_HZ <= file.samplerate <= RATE_MAX_HZ:
        raise _refuse(
            name,
            f"has a sample rate of {file.samplerate:,} Hz; it must be {RATE_MIN_HZ:,} to "
            f"{RATE_MAX_HZ:,} Hz",
        )
    if file.channels > SOURCE_CHANNELS_MAX:
        raise _refuse(
            name,
            f"has {file.channels} channels; mix it down to 1 or 2 first, such as with "
            "`ffmpeg -i IN -ac 2 OUT.wav`",
        )
    lasts_s = file.frames / file.samplerate
    if lasts_s < SOURCE_MIN_S:
        raise _refuse(name, f"lasts {lasts_s:.4g} s; at least {SOURCE_MIN_S:g} s are needed")
    if lasts_s > SOURCE_MAX_S:
        raise _refuse(
            name,
            f"lasts {lasts_s:,.0f} s, more than {SOURCE_MAX_S:g} s; cut out the part to begin with",
        )
    if file.frames * file.channels > SAMPLES_MAX:
        raise _refuse(
            name,
            f"has {file.frames * file.channels:,} samples, more than {SAMPLES_MAX:,}; cut out the "
            "part to begin with, or resample it",
        )
    # libsndfile reads a WAV file to its end, and says where its header declares more than there is.
    lie = re.search(r"^ *data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if lie and 0 < int(lie[2]) < int(lie[1]) < 2**32 - 1:  # a stream's length is not known before
        raise _refuse(
            name, f"is cut short: it declares {int(lie[1]):,} bytes of sound and has {lie[2]}"
        )
