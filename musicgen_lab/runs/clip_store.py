"""`ClipStore`: a folder of finished clips, one pair of files each, that survives being killed.

A clip is two files named by its request's key: `<key>.wav`, the samples as generated, and
`<key>.json`, its record. Each is written beside its place and renamed into it, the record last, so
a record that can be read belongs to a whole sound file. A failed request is a record alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from musicgen_lab.clip import Clip, Failure, Provenance, decode_audio
from musicgen_lab.errors import (
    InvalidRequest,
    MusicGenLabWarning,
    RunFolderError,
)
from musicgen_lab.request import GenerationRequest, digest
from musicgen_lab.runs.atomic_io import file_stamp, folder_lock, stage, sync_folder, unwritable

STALE_TEMPORARY_S = 3600.0  # older leftovers of a killed process are nobody's any more
_KEY = re.compile(r"[0-9a-f]{64}")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AudioFile(_Record):
    """The description of a sound file in its record."""

    file: str
    sha256: str
    sample_rate_hz: int
    channels: int
    frames: int


class Error(_Record):
    """Why a request failed."""

    type: str
    message: str


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
    """

    format: Literal["musicgen-lab clip 1"] = "musicgen-lab clip 1"
    key: str
    status: Literal["ok", "failed"]
    request: dict[str, Any]
    attempts: int
    created_at: str
    elapsed_s: float
    provenance: dict[str, Any] | None = None
    audio: AudioFile | None = None
    error: Error | None = None


class ClipStore:
    """A folder of finished clips, addressed by what was asked.

    Any number of processes may write to one folder. What is damaged or not a clip is moved to
    `set-aside/` beside the folder, with a warning, and counts as not there.

    Parameters
    ----------
    folder : Path
        Created by the first `put`.

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

    def record(self, key: str) -> ClipRecord | None:
        """Return the record of a key, or None when there is none that can be trusted.

        The sound's checksum is verified, once per process and file.

        Parameters
        ----------
        key : str
        """
        record = self._trusted(key)
        older_name = self._older_names.get(key) if record is None else None
        return self._trusted(older_name) if older_name is not None else record

    def records(self) -> Iterator[ClipRecord]:
        """Yield every record that can be trusted, one per key, in the order of their files."""
        seen: set[str] = set()
        for path in sorted(self.folder.glob("*.json")):
            if not _KEY.fullmatch(path.stem):
                self._set_aside(path.stem, "its name is not the key of a request")
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

        By the key that the request has now; see `musicgen_lab.request.plain_number`.
        """
        names = [path.stem for path in self.folder.glob("*.json") if _KEY.fullmatch(path.stem)]
        records = ((name, self._read(name)[0]) for name in sorted(names))
        return {record.key: name for name, record in records if record and record.key != name}

    def _trusted(self, name: str) -> ClipRecord | None:
        """Return the record in a file; one with a fault is set aside."""
        record, fault = self._read(name)
        if fault is None:
            return record
        with folder_lock(self.folder):  # another process may have been between its two renames
            record, fault = self._read(name)
            if fault is not None:
                self._set_aside(name, fault)
                return None
        return record

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
        samples, sample_rate = decode_audio((self.folder / record.audio.file).read_bytes())
        return Clip(
            GenerationRequest(**record.request),
            samples,
            sample_rate,
            Provenance(**record.provenance),
            record.elapsed_s,
        )

    def put(self, result: Clip | Failure, *, replace: bool = False) -> ClipRecord:
        """Store a clip or a failure.

        Parameters
        ----------
        result : Clip or Failure
        replace : bool
            Whether a clip takes the place of a finished one. A failure never does.

        Raises
        ------
        RunFolderUnwritable
            When the folder cannot be written. What was finished stays.
        """
        key = result.request.key()
        before = self.record(key)
        wav = result.wav_bytes() if isinstance(result, Clip) else None
        record = _describe(result, wav, attempts=1 + (before.attempts if before else 0))
        files = {f"{key}.json": record.model_dump_json(indent=1).encode()}
        if wav is not None:
            files = {f"{key}.wav": wav, **files}  # the record comes last
        staged: list[tuple[Path, Path]] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                staged.append((stage(self.folder / name, content), self.folder / name))
            with folder_lock(self.folder):
                now, fault = self._read(key)
                if now is not None and fault is None and now.status == "ok":
                    if wav is None or not replace:
                        return now
                    (self.folder / f"{key}.json").unlink()  # it is not the new sound's
                for temporary, final in staged:
                    temporary.replace(final)
                self._records[key] = (file_stamp(self.folder / f"{key}.json"), record)
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)
        return record

    def sweep_leftovers(self) -> None:
        """Delete unfinished files that a process killed long ago left behind."""
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > STALE_TEMPORARY_S:
                    path.unlink()
            except OSError:
                continue  # gone already, or not ours to delete

    def _read(self, name: str) -> tuple[ClipRecord | None, str | None]:
        """Return a file's record and what is wrong with it; (None, None) where there is none.

        The record's key and request are those of today's requests, whatever the file is called.
        """
        path = self.folder / f"{name}.json"
        try:
            stamp = file_stamp(path)
            stamp_read, record = self._records.get(name, (None, None))
            if record is not None and stamp_read == stamp:
                return record, self._sound_fault(record.audio) if record.audio else None
            content = path.read_bytes()
        except FileNotFoundError:
            return None, None
        except OSError as error:
            raise RunFolderError(f"cannot read {path}: {error.strerror}") from error
        try:
            written = ClipRecord.model_validate_json(content)
            request = GenerationRequest(**written.request)
        except (ValidationError, InvalidRequest):
            return None, "its record is damaged or of another format"
        if written.key != name or digest(written.request) != name:
            return None, "its record describes another request"
        record = written.model_copy(update={"key": request.key(), "request": request.model_dump()})
        if record.status == "failed":
            if record.error is None:
                return None, "its record is incomplete"
            self._records[name] = (stamp, record)
            return record, None
        if record.audio is None or record.provenance is None or record.audio.file != f"{name}.wav":
            return None, "its record is incomplete"
        self._records[name] = (stamp, record)
        return record, self._sound_fault(record.audio)

    def _sound_fault(self, audio: AudioFile) -> str | None:
        path = self.folder / audio.file
        try:
            stamp = (audio.sha256, *file_stamp(path))
            if self._verified.get(audio.file) != stamp:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != audio.sha256:
                        return "its sound does not match its checksum"
                self._verified[audio.file] = stamp
        except FileNotFoundError:
            return "its sound is missing"
        return None

    def _set_aside(self, name: str, fault: str) -> None:
        aside = self.folder.parent / "set-aside"
        warnings.warn(
            f"{name[:12]}… is not trusted: {fault}; moved to {aside}",
            MusicGenLabWarning,
            stacklevel=3,
        )
        try:
            aside.mkdir(exist_ok=True)
            for path in (self.folder / f"{name}.json", self.folder / f"{name}.wav"):
                if path.exists():
                    path.replace(aside / f"{path.name}.{secrets.token_hex(4)}")
        except OSError as error:
            raise unwritable(aside, error) from error


def _describe(result: Clip | Failure, wav: bytes | None, attempts: int) -> ClipRecord:
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
    return ClipRecord(status="ok", audio=audio, provenance=asdict(result.provenance), **common)
