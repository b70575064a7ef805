"""`ClipStore`: a folder of finished clips, one pair of files each, that survives being killed.

A clip is files named by its request's key: `<key>.wav`, the samples as generated, `<key>.json`, its
record, and, where they are known, `<key>.codes.npz`, its codes. Each is written under a temporary
name and renamed, the record last, so a record always belongs to complete files. A failed request
has only a record.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from musicgen_lab.clip import (
    MESSAGE_MAX_CHARACTERS,
    Clip,
    Failure,
    Name,
    Provenance,
    decode_audio,
    shape_fault,
)
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning, RunFolderUnwritable
from musicgen_lab.request import GenerationRequest, digest
from musicgen_lab.runs.atomic_io import (
    UnreadableFile,
    file_stamp,
    folder_lock,
    read_file,
    stage,
    sync_folder,
    unwritable,
    write_atomically,
)
from musicgen_lab.source import CODES_MAX_BYTES, CODES_SUFFIX, Source, SourceCodes

RECORD_MAX_BYTES = 1_000_000
WAV_HEADER_MAX_BYTES = 4096
_KEY = re.compile(r"[0-9a-f]{64}")


def _iso_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Timestamp = Annotated[str, StringConstraints(max_length=40), AfterValidator(_iso_time)]
"""A time as ISO 8601 writes it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AudioFile(_Record):
    """The description of a sound file in its record."""

    file: str
    sha256: Key
    sample_rate_hz: int
    channels: int
    frames: int


class CodesFile(_Record):
    """The description of a file with a clip's codes in its record."""

    file: str
    sha256: Key


class Error(_Record):
    """Why a request failed."""

    type: Name
    message: Annotated[str, AfterValidator(lambda text: text[:MESSAGE_MAX_CHARACTERS])]


class ClipRecord(_Record):
    """The JSON record of a clip: the request, its outcome, provenance and times.

    Attributes
    ----------
    status : {"ok", "failed"}
    request : dict
        Every field of the request, its seed and its model's revision included.
    attempts : int
        How often the request has been tried in this folder.
    elapsed_s : float
        Seconds that the last attempt took.
    provenance : Provenance or None
        Of a finished clip, as is `audio`.
    codes : CodesFile or None
        Of a finished clip whose codes are known.
    error : Error or None
        Of a failed request.
    sha256 : str or None
        Of the record's other fields; earlier versions wrote none.
    """

    format: Literal["musicgen-lab clip 1"] = "musicgen-lab clip 1"
    key: Key
    status: Literal["ok", "failed"]
    request: dict[str, Any]
    attempts: int = Field(ge=1, le=1_000_000)
    created_at: Timestamp
    elapsed_s: float = Field(ge=0)
    provenance: Provenance | None = None
    audio: AudioFile | None = None
    codes: CodesFile | None = None
    error: Error | None = None
    sha256: Key | None = None

    @model_serializer(mode="wrap")
    def _leave_out_no_codes(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a record without codes as earlier versions did, with the same checksum."""
        fields: dict[str, Any] = serialize(self)
        if self.codes is None:
            fields.pop("codes", None)
        return fields

    def checksum(self) -> str:
        """Return the SHA-256 of all fields but the checksum itself."""
        others = self.model_copy(update={"sha256": None})
        return hashlib.sha256(others.model_dump_json().encode()).hexdigest()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.sha256 not in (None, self.checksum()):
            raise ValueError("it does not match its checksum")
        parts = (self.provenance, self.audio) if self.status == "ok" else (self.error,)
        if None in parts:
            raise ValueError("it is incomplete")
        return self


@dataclass(frozen=True)
class _Fault:
    """A fault of a record or its sound, and the request if the record states it."""

    reason: str
    request: GenerationRequest | None = None


class ClipStore:
    """A folder of finished clips, addressed by what was requested.

    Any number of processes may write to one folder. What is damaged or not a clip counts as not
    there, with a warning; `put` moves it to `set-aside/` beside the folder when it writes the same
    clip anew. Reading changes nothing.

    Parameters
    ----------
    folder : Path
        It must exist before the first `put`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from musicgen_lab import ClipStore
    >>> store = ClipStore(Path("runs/guitar/clips"))
    >>> {record.status for record in store.records()}
    {'ok'}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: dict[str, tuple[str | int, ...]] = {}
        self._records: dict[str, tuple[tuple[int, int, int], ClipRecord]] = {}  # by file name
        self._faults: dict[str, _Fault] = {}  # by file name

    def record(self, key: str) -> ClipRecord | None:
        """Return the valid record of a key, or None.

        The sound's checksum is verified, once per process and file.

        Parameters
        ----------
        key : str
        """
        record = self._trusted(key)
        older_name = self._older_names.get(key) if record is None else None
        return self._trusted(older_name) if older_name is not None else record

    def records(self) -> Iterator[ClipRecord]:
        """Yield every valid record, one per key, in the order of their files."""
        seen: set[str] = set()
        for path in sorted(self.folder.glob("*.json")):
            if not _KEY.fullmatch(path.stem):
                self._report(path.stem, _Fault("its name is not the key of a request"))
                continue
            record = self._trusted(path.stem)
            if record is None or record.key in seen:
                continue
            if record.key != path.stem:  # an older name: a clip under the key itself comes first
                record = self.record(record.key) or record
            seen.add(record.key)
            yield record

    @cached_property
    def _older_names(self) -> dict[str, str]:
        """The names of files whose request was written down with the digits of a rounding error.

        By the key that the request has now; see `musicgen_lab.fields.plain_number`.
        """
        names = [path.stem for path in self.folder.glob("*.json") if _KEY.fullmatch(path.stem)]
        records = ((name, self._read_record(name)[0]) for name in sorted(names))
        return {record.key: name for name, record in records if record and record.key != name}

    def copy_to(self, folder: Path) -> None:
        """Copy every clip that can be trusted, and every failure, to another folder of clips.

        Raises
        ------
        RunFolderUnwritable
            When the other folder cannot be written.
        """
        for path in sorted(self.folder.glob("*.json")):
            record = self._trusted(path.stem) if _KEY.fullmatch(path.stem) else None
            if record is None or (folder / path.name).exists():
                continue
            if record.audio is not None:
                write_atomically(folder / record.audio.file, self._read_sound(record.audio))
            if record.codes is not None and (codes := self._read_codes(record.codes)) is not None:
                write_atomically(folder / record.codes.file, codes)
            content = read_file(path, root=self.folder, max_bytes=RECORD_MAX_BYTES)
            write_atomically(folder / path.name, content)  # the record comes last

    def damaged(self, requests: Mapping[str, GenerationRequest]) -> Iterator[ClipRecord]:
        """Yield a failed record for every damaged file that `records` met and left out.

        Parameters
        ----------
        requests : Mapping of str to GenerationRequest
            By key: what is known to have been requested, since a damaged record may not tell.
        """
        for name, fault in self._faults.items():
            request = fault.request or requests.get(name)
            path = self.folder / f"{name}.json"
            if request is None or not os.path.lexists(path):
                continue
            written_at = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
            yield ClipRecord(
                key=request.key(),
                status="failed",
                request=request.model_dump(),
                attempts=1,
                created_at=written_at.isoformat(timespec="seconds"),
                elapsed_s=0.0,
                error=Error(
                    type="DamagedFile", message=f"{self.folder.name}/{path.name}: {fault.reason}"
                ),
            )

    def _trusted(self, name: str) -> ClipRecord | None:
        """Return the record in a file; None with a warning where it has a fault."""
        record, fault = self._read(name)
        if fault is not None:  # another process may have been between its two renames
            with suppress(RunFolderUnwritable), folder_lock(self.folder):
                record, fault = self._read(name)
        if fault is not None:
            self._report(name, fault)
            return None
        self._faults.pop(name, None)
        return record

    def _report(self, name: str, fault: _Fault) -> None:
        """Remember a fault, and warn about it once."""
        if self._faults.get(name) != fault:
            self._faults[name] = fault
            warnings.warn(
                f"{self.folder / name}.json is not used: {fault.reason}; running its sweep again "
                "makes the clip anew",
                MusicGenLabWarning,
                stacklevel=4,
            )

    def clip(self, key: str) -> Clip:
        """Return the finished clip of a key.

        Parameters
        ----------
        key : str

        Raises
        ------
        KeyError
            When there is no finished clip of that key.
        """
        record = self.record(key)
        if record is None or record.audio is None or record.provenance is None:
            raise KeyError(f"no finished clip {key[:12]}… in {self.folder}")
        samples, sample_rate = decode_audio(self._read_sound(record.audio))
        request = GenerationRequest(**record.request)
        stored = self._read_codes(record.codes) if record.codes is not None else None
        codes = None if stored is None else SourceCodes.from_bytes(stored).codes
        return Clip(request, samples, sample_rate, record.provenance, record.elapsed_s, codes)

    def source(self, key: str) -> Source:
        """Return what continues a finished clip: its codes where they are known, else its sound.

        Parameters
        ----------
        key : str
            Or its first characters.

        Raises
        ------
        KeyError
            When there is no such finished clip, or more than one.
        """
        keys = sorted({record.key for record in self.records() if record.key.startswith(key)})
        record = self.record(keys[0]) if len(keys) == 1 and key else None
        if record is None or record.audio is None:
            fault = (
                f"{len(keys)} clips have keys that begin with" if len(keys) > 1 else "no clip is"
            )
            raise KeyError(f"{fault} {key!r} in {self.folder.parent}")
        codes = self._read_codes(record.codes) if record.codes is not None else None
        content = self._read_sound(record.audio) if codes is None else codes
        return Source.of_bytes(content, f"{self.folder.parent.name}#{record.key[:12]}")

    def put(self, result: Clip | Failure, *, replace: bool = False) -> ClipRecord:
        """Store a clip or a failure.

        Parameters
        ----------
        result : Clip or Failure
        replace : bool
            Whether a clip replaces a finished one. A failure never does.

        Raises
        ------
        RunFolderUnwritable
            When the folder cannot be written. Finished clips are kept.
        """
        key = result.request.key()
        before = self.record(key)
        wav = result.wav_bytes() if isinstance(result, Clip) else None
        codes = result.codes_bytes() if isinstance(result, Clip) else None
        record = _describe(result, wav, codes, attempts=1 + (before.attempts if before else 0))
        record = record.model_copy(update={"sha256": record.checksum()})
        files = {f"{key}.json": record.model_dump_json(indent=1).encode()}
        if wav is not None:
            files = {f"{key}.wav": wav, **files}  # the record comes last
        if codes is not None:
            files = {_codes_file(key): codes, **files}
        staged: list[tuple[Path, Path]] = []
        try:
            for name, content in files.items():
                staged.append((stage(self.folder / name, content), self.folder / name))
            with folder_lock(self.folder):
                now, fault = self._read(key)
                if now is not None and fault is None and now.status == "ok":
                    if wav is None or not replace:
                        return now
                    (self.folder / f"{key}.json").unlink()  # it is not the new sound's
                    (self.folder / _codes_file(key)).unlink(missing_ok=True)
                if fault is not None:
                    self._set_aside(key)
                for temporary, final in staged:
                    temporary.replace(final)
                self._records[key] = (file_stamp(self.folder / f"{key}.json"), record)
                if wav is not None and record.audio and _wav_fault(wav, record.audio) is None:
                    self._verified[record.audio.file] = self._sound_stamp(record.audio)
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        return record

    def _read(self, name: str) -> tuple[ClipRecord | None, _Fault | None]:
        """Return a file's record, whose sound matches it, or the fault; (None, None) if none."""
        record, fault = self._read_record(name)
        if record is None or record.audio is None:
            return record, fault
        reason = self._sound_fault(record.audio)
        if reason is not None:
            return None, _Fault(reason, GenerationRequest(**record.request))
        return record, None

    def _read_record(self, name: str) -> tuple[ClipRecord | None, _Fault | None]:
        """Return a file's record or its fault, without its sound; (None, None) if there is none.

        The record's key and request are those of today's requests, independent of the file's name.
        """
        path = self.folder / f"{name}.json"
        try:
            stamp = file_stamp(path)
            stamp_read, record = self._records.get(name, (None, None))
            if record is not None and stamp_read == stamp:
                return record, None
            content = read_file(path, root=self.folder, max_bytes=RECORD_MAX_BYTES)
        except FileNotFoundError:
            return None, None
        except (UnreadableFile, OSError) as error:
            return None, _Fault(f"it cannot be read ({error})")
        try:
            written = ClipRecord.model_validate_json(content)
            request = GenerationRequest(**written.request)
        except (ValidationError, InvalidRequest):
            return None, _Fault("its record is damaged or of another format")
        if written.key != name or digest(written.request) != name:
            return None, _Fault("its record describes another request")
        if written.audio is not None and written.audio.file != f"{name}.wav":
            return None, _Fault("its record names another file's sound", request)
        if written.codes is not None and written.codes.file != _codes_file(name):
            return None, _Fault("its record names another file's codes", request)
        if (audio := written.audio) is not None:
            fault = shape_fault(request, audio.channels, audio.frames, audio.sample_rate_hz)
            if fault is not None:
                return None, _Fault(fault, request)
        record = written.model_copy(update={"key": request.key(), "request": request.model_dump()})
        self._records[name] = (stamp, record)
        return record, None

    def _sound_fault(self, audio: AudioFile) -> str | None:
        """Return the fault of a sound file, which is read once per process and file."""
        try:
            stamp = self._sound_stamp(audio)
            if self._verified.get(audio.file) == stamp:
                return None
            content = self._read_sound(audio)
        except FileNotFoundError:
            return "its sound is missing"
        except (UnreadableFile, OSError) as error:
            return f"its sound cannot be read ({error})"
        if hashlib.sha256(content).hexdigest() != audio.sha256:
            return "its sound does not match its checksum"
        fault = _wav_fault(content, audio)
        if fault is None:
            self._verified[audio.file] = stamp
        return fault

    def _sound_stamp(self, audio: AudioFile) -> tuple[str | int, ...]:
        return audio.sha256, *file_stamp(self.folder / audio.file)

    def _read_sound(self, audio: AudioFile) -> bytes:
        max_bytes = WAV_HEADER_MAX_BYTES + 4 * audio.channels * audio.frames
        return read_file(self.folder / audio.file, root=self.folder, max_bytes=max_bytes)

    def _read_codes(self, codes: CodesFile) -> bytes | None:
        """Return the content of a file of codes; None with a warning where it has a fault."""
        try:
            content = read_file(
                self.folder / codes.file, root=self.folder, max_bytes=CODES_MAX_BYTES
            )
            if hashlib.sha256(content).hexdigest() != codes.sha256:
                raise UnreadableFile("it does not match its checksum")
            SourceCodes.from_bytes(content)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"the codes in {self.folder / codes.file} are not used: {error}",
                MusicGenLabWarning,
                stacklevel=3,
            )
            return None
        return content

    def _set_aside(self, name: str) -> None:
        """Set a damaged clip aside, so that it can be made again."""
        aside = self.folder.parent / "set-aside"
        aside.mkdir(exist_ok=True)
        for file in (f"{name}.json", f"{name}.wav", _codes_file(name)):
            path = self.folder / file
            with suppress(FileNotFoundError):
                path.replace(aside / f"{path.name}.{secrets.token_hex(4)}")


def _codes_file(key: str) -> str:
    return f"{key}.codes.{CODES_SUFFIX}"


def _wav_fault(content: bytes, audio: AudioFile) -> str | None:
    """Return how a sound file differs from its record; None if it matches."""
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            if sound.subtype != "FLOAT":
                return f"its sound is stored as {sound.subtype}, not as 32-bit floats"
            shape = (sound.channels, sound.frames, sound.samplerate)
            if shape != (audio.channels, audio.frames, audio.sample_rate_hz):
                return "its sound has other channels, another length or rate than its record says"
            finite = bool(np.isfinite(sound.read(dtype="float32")).all())
    except soundfile.SoundFileError:
        return "its sound is no WAV file"
    return None if finite else "its samples are not all finite numbers"


def _describe(
    result: Clip | Failure, wav: bytes | None, codes: bytes | None, attempts: int
) -> ClipRecord:
    common: dict[str, Any] = {
        "key": result.request.key(),
        "request": result.request.model_dump(),
        "attempts": attempts,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(result.elapsed_s, 6),
    }
    if isinstance(result, Failure):
        error = Error(type=result.error_type, message=result.message)
        return ClipRecord(status="failed", error=error, **common)
    assert wav is not None
    audio = AudioFile(
        file=f"{common['key']}.wav",
        sha256=hashlib.sha256(wav).hexdigest(),
        sample_rate_hz=result.sample_rate,
        channels=result.samples.shape[0],
        frames=result.samples.shape[1],
    )
    codes_file = None
    if codes is not None:
        checksum = hashlib.sha256(codes).hexdigest()
        codes_file = CodesFile(file=_codes_file(common["key"]), sha256=checksum)
    return ClipRecord(
        status="ok", audio=audio, codes=codes_file, provenance=result.provenance, **common
    )
