"""`RunFolder`: a sweep on disk: its requests, the clips, and derived files."""

from __future__ import annotations

import hashlib
import re
import secrets
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from musicgen_lab.clip import NAME_MAX_CHARACTERS, Clip, Failure, Name, checked
from musicgen_lab.errors import (
    InvalidRequest,
    MusicGenLabWarning,
    RunFolderError,
    RunFolderUnwritable,
)
from musicgen_lab.fields import PROMPT_MAX_CHARACTERS, REQUEST_FIELDS
from musicgen_lab.formatting import short
from musicgen_lab.request import GenerationRequest, digest
from musicgen_lab.runs.answers import AnswerStore
from musicgen_lab.runs.atomic_io import (
    UnreadableFile,
    file_stamp,
    folder_lock,
    read_file,
    remove_leftovers,
    unwritable,
    write_atomically,
)
from musicgen_lab.runs.clip_store import ClipRecord, ClipStore, Key, Timestamp
from musicgen_lab.source import SOURCE_MAX_BYTES, Source
from musicgen_lab.version import VERSION

MANIFEST = "sweep.json"
MANIFEST_MAX_BYTES = 1_000_000_000  # a million requests with prompts of hundreds of characters
CLIPS, ANSWERS, SET_ASIDE, SOURCES = "clips", "answers", "set-aside", "sources"
SIGNATURES_FILE = "signatures.npz"
SIMILARITIES_FILE, EMBEDDINGS_FILE = "text_similarity.json", "clap_embeddings.json"
AESTHETICS_FILE, WINDOWS_FILE = "aesthetics.json", "windows.json"
DERIVED = (
    "results.parquet",
    "report.html",
    "report.ipynb",
    "listening",
    SIGNATURES_FILE,
    SIMILARITIES_FILE,
    EMBEDDINGS_FILE,
    AESTHETICS_FILE,
    WINDOWS_FILE,
)
"""What may be in a run folder besides the clips; all of it can be regenerated."""


def _field_name(name: str) -> str:
    if name not in REQUEST_FIELDS:
        raise ValueError(f"there is no field {name!r}")
    return name


FieldName = Annotated[str, AfterValidator(_field_name)]
Value = (
    Annotated[str, StringConstraints(max_length=PROMPT_MAX_CHARACTERS)] | bool | int | float | None
)
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Grid(_Strict):
    kind: Literal["grid"]
    fields: dict[FieldName, list[Value]]


class _Rows(_Strict):
    kind: Literal["rows"]
    rows: list[dict[FieldName, Value]]
    fields: dict[FieldName, list[Value]]


class _Range(_Strict):
    low: int | float
    high: int | float


class _Sample(_Strict):
    kind: Literal["sample"]
    n: Count
    seed: Count
    replicates: Count
    fields: dict[FieldName, list[Value] | _Range]


_DESIGN: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Grid | _Rows | _Sample, Field(discriminator="kind")]
)


def _design(design: dict[str, Any]) -> dict[str, Any]:
    """Validate a design: every value must have a type and size that commands can show."""
    _DESIGN.validate_json(pydantic_core.to_json(design))
    return design


class AskedSweep(_Strict):
    """One sweep as recorded in a folder."""

    id: str
    asked_at: Timestamp
    lab_version: Name
    design: Annotated[dict[str, Any], AfterValidator(_design)]
    requests: list[dict[str, Any]]
    sources: dict[Key, Name] = {}  # the names of what clips begin with, by digest

    @model_serializer(mode="wrap")
    def _leave_out_no_sources(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a sweep without sources as earlier versions did, with the same checksum."""
        fields: dict[str, Any] = serialize(self)
        if not self.sources:
            fields.pop("sources", None)
        return fields


class _Manifest(_Strict):
    """The content of `sweep.json`; earlier versions wrote no checksum."""

    format: Literal["musicgen-lab run 1"] = "musicgen-lab run 1"
    sha256: str | None = None
    sweeps: list[AskedSweep] = []

    @classmethod
    def of(cls, sweeps: list[AskedSweep]) -> Self:
        return cls(sha256=_checksum(sweeps), sweeps=sweeps)

    @model_validator(mode="after")
    def _is_as_it_was_written(self) -> Self:
        if self.sha256 not in (None, _checksum(self.sweeps)):
            raise ValueError("it does not match its checksum")
        return self


def _checksum(sweeps: Sequence[AskedSweep]) -> str:
    content = pydantic_core.to_json([sweep.model_dump() for sweep in sweeps])
    return hashlib.sha256(content).hexdigest()


class _ReadManifest(NamedTuple):
    """A manifest that was read or written, and the version of its file."""

    stamp: tuple[int, int, int]
    manifest: _Manifest
    requests: tuple[GenerationRequest, ...]
    damaged: bool = False


class RunFolder:
    """The folder of a run. Sweeps in the same folder share its clips.

    Parameters
    ----------
    path : str or Path
        May be missing or empty: `create` makes it.

    Attributes
    ----------
    store : ClipStore
        The clips.
    answers : AnswerStore
        What listeners said of them.

    Raises
    ------
    RunFolderError
        When the folder holds another kind of thing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = ClipStore(self.path / CLIPS)
        self.answers = AnswerStore(self.path / ANSWERS)
        self._read: _ReadManifest | None = None
        self._clips_id: tuple[int, int] | None = None
        self._sources: dict[str, Source] = {}  # read or written, by digest
        self._check_kind()

    @classmethod
    def started(cls, path: str | Path) -> RunFolder:
        """Return the folder of a run that has been started.

        Raises
        ------
        RunFolderError
            When there is no such folder, or no run in it.
        """
        run = cls(path)
        if not run.manifest_path.exists():
            if any(run.store.folder.glob("*.json")):
                run._tell_manifest_lost()
                return run
            fault = "holds no run" if run.path.is_dir() else "does not exist"
            raise RunFolderError(f"{path} {fault}; give the folder that was the sweep's --out")
        return run

    def create(self) -> None:
        """Make the folder where it is missing, and check that it can be written.

        Raises
        ------
        RunFolderUnwritable
            When it cannot.
        """
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            probe = self.store.folder / f".writable.{secrets.token_hex(4)}.tmp"
            probe.touch()
            probe.unlink()
            self._clips_id = self._identify_clips()
        except OSError as error:
            raise unwritable(self.path, error) from error
        if not self.manifest_path.exists() and any(self.store.folder.glob("*.json")):
            self._tell_manifest_lost()
        for folder in (self.path, self.store.folder, self.path / SOURCES, self.path / "listening"):
            remove_leftovers(folder)

    def copy_to(self, path: str | Path) -> RunFolder:
        """Copy sweeps, clips and answers to another folder, such as those of a read-only run.

        Parameters
        ----------
        path : str or Path
            A new or empty folder, or an earlier copy.

        Raises
        ------
        RunFolderError, RunFolderUnwritable
            When the other folder holds something else or cannot be written.
        """
        copy = RunFolder(path)
        manifest, _ = self._read_manifest()
        content = _Manifest.of(manifest.sweeps).model_dump_json(indent=1).encode()
        write_atomically(copy.manifest_path, content)
        copy.create()
        self.store.copy_to(copy.store.folder)
        for kept in self.source_names:
            if (source := self.source(kept)) is not None:
                copy._keep_source(source)
        self.answers.copy_to(copy.answers)
        return copy

    def put(self, result: Clip | Failure, *, replace: bool = False) -> ClipRecord:
        """Store a result of a sweep that `add_sweep` has written down; see `ClipStore.put`.

        A clip that cannot be what was requested is stored as a failure
        (`musicgen_lab.clip.checked`).

        Raises
        ------
        RunFolderUnwritable
            When the folder cannot be written, or is no longer where it was.
        """
        self.check_in_place()
        return self.store.put(checked(result), replace=replace)

    def check_in_place(self) -> None:
        """Raise if the folder was removed, moved or replaced since `create`.

        Raises
        ------
        RunFolderUnwritable
        """
        try:
            moved = self._clips_id not in (None, self._identify_clips())
        except FileNotFoundError:
            moved = True
        except OSError as error:
            raise unwritable(self.path, error) from error
        if moved:
            raise RunFolderUnwritable(
                f"{self.path} was removed or moved while the sweep ran, which has stopped; put the "
                "folder back or give another one, and run the same command again"
            )
        if not self.manifest_path.exists():
            raise RunFolderUnwritable(
                f"{self.manifest_path} was removed while the sweep ran, which has stopped; "
                "finished clips are kept: run the same command again"
            )

    def _identify_clips(self) -> tuple[int, int]:
        status = self.store.folder.stat()
        return status.st_dev, status.st_ino

    def _tell_manifest_lost(self) -> None:
        clips = sum(1 for _ in self.store.folder.glob("*.json"))
        warnings.warn(
            f"{self.path} has lost its {MANIFEST}, the list of its sweeps; its {clips:,} clips are "
            "kept, and running their sweep again adds it to a new list",
            MusicGenLabWarning,
            stacklevel=3,
        )

    @property
    def manifest_path(self) -> Path:
        """The manifest, with all sweeps of this folder."""
        return self.path / MANIFEST

    @property
    def results_path(self) -> Path:
        """The tidy frame; derived, and rebuilt when deleted."""
        return self.path / "results.parquet"

    @property
    def sweeps(self) -> list[AskedSweep]:
        """All sweeps of this folder, the oldest first."""
        return self._read_manifest()[0].sweeps

    def add_sweep(self, design: Mapping[str, Any], requests: Sequence[GenerationRequest]) -> None:
        """Record a sweep before it runs; recording the same one again adds nothing.

        What its clips begin with is copied into the folder.
        """
        identity = _identify(request.key() for request in requests)
        sources = dict.fromkeys(request.begin_with for request in requests if request.begin_with)
        for source in sources:
            self._keep_source(source)
        with folder_lock(self.path):
            manifest, known = self._read_manifest()
            if any(sweep.id == identity for sweep in manifest.sweeps):
                return
            if self._read is not None and self._read.damaged:
                self._set_manifest_aside()
            sweep = AskedSweep(
                id=identity,
                asked_at=datetime.now(UTC).isoformat(timespec="seconds"),
                lab_version=VERSION,
                design=dict(design),
                requests=[request.model_dump() for request in requests],
                sources={
                    source.digest: printable(source.name) for source in sources if source.name
                },
            )
            manifest = _Manifest.of([*manifest.sweeps, sweep])
            write_atomically(self.manifest_path, manifest.model_dump_json(indent=1).encode())
            self._read = _ReadManifest(
                file_stamp(self.manifest_path), manifest, (*known, *requests)
            )

    @property
    def source_names(self) -> dict[str, str]:
        """The names of what clips of this folder begin with, by digest."""
        return {known: name for sweep in self.sweeps for known, name in sweep.sources.items()}

    def source(self, digest: str) -> Source | None:
        """Return what clips begin with, from the folder's own copy; None if it has none.

        Parameters
        ----------
        digest : str
        """
        path = self.source_path(digest)
        if digest not in self._sources and path is not None:
            try:
                content = read_file(path, root=self.path, max_bytes=SOURCE_MAX_BYTES)
                source = Source.of_bytes(content, self.source_names.get(digest, path.name))
            except (OSError, UnreadableFile, InvalidRequest):
                return None
            if source.digest == digest:
                self._sources[digest] = source
        return self._sources.get(digest)

    def source_path(self, digest: str) -> Path | None:
        """Return the folder's own copy of what clips begin with; None if it has none."""
        return next((self.path / SOURCES).glob(f"{digest}.*"), None)

    def _keep_source(self, source: Source) -> None:
        """Keep a copy of what clips begin with, so that the run can be resumed from its folder."""
        if source.content is not None and self.source(source.digest) is None:
            write_atomically(
                self.path / SOURCES / f"{source.digest}.{source.suffix}", source.content
            )
            self._sources[source.digest] = source

    def requests(self) -> list[GenerationRequest]:
        """Return all requests of this folder's sweeps, in order, without duplicates."""
        _, requests = self._read_manifest()
        return list({request.key(): request for request in requests}.values())

    def _check_kind(self) -> None:
        try:
            root, is_file = self.path.resolve(), self.path.exists() and not self.path.is_dir()
        except (OSError, ValueError) as error:  # too long a name, or a folder closed to this user
            reason = getattr(error, "strerror", None) or error
            raise RunFolderError(
                f"{short(str(self.path), str)} cannot be opened ({reason}); give another folder"
            ) from None
        if is_file:
            raise RunFolderError(f"{self.path} is a file; give the path of a folder for the run")
        for name in (CLIPS, ANSWERS, SET_ASIDE, SOURCES):
            if not (self.path / name).resolve().is_relative_to(root):
                raise RunFolderError(
                    f"{self.path / name} is a link that leaves the run folder and is not "
                    "followed; put the folder itself there"
                )
        if self.manifest_path.exists():
            self._read_manifest()
        elif self.path.is_dir():
            strangers = [
                path.name
                for path in self.path.iterdir()
                if not path.name.startswith(".")
                and path.name not in (CLIPS, ANSWERS, SET_ASIDE, SOURCES)
                and not (path.name in DERIVED and self.store.folder.is_dir())
            ]
            if strangers:
                raise RunFolderError(
                    f"{self.path} holds something else ({', '.join(sorted(strangers)[:3])}); "
                    "give a new or empty folder, or one that a sweep made"
                )

    def _read_manifest(self) -> tuple[_Manifest, tuple[GenerationRequest, ...]]:
        """Return the manifest and its requests; they are read once and again when it changes.

        A damaged one counts as empty where there are clips: their own records say what they are.
        """
        try:
            stamp = file_stamp(self.manifest_path)
            if self._read is None or self._read.stamp != stamp:
                content = read_file(
                    self.manifest_path, root=self.path, max_bytes=MANIFEST_MAX_BYTES
                )
                self._read = self._parse(stamp, content)
            return self._read.manifest, self._read.requests
        except FileNotFoundError:
            return _Manifest(), ()
        except OSError as error:
            raise RunFolderError(f"cannot read {self.manifest_path}: {error.strerror}") from error
        except (ValidationError, InvalidRequest, UnreadableFile) as error:
            if not any(self.store.folder.glob("*.json")):
                raise RunFolderError(
                    f"{self.manifest_path} is damaged or was not written by a sweep; "
                    "give another folder"
                ) from error
            warnings.warn(
                f"{self.manifest_path} is damaged: the list of sweeps is not read. The clips are "
                "kept, and running their sweep again adds it to a new list",
                MusicGenLabWarning,
                stacklevel=2,
            )
            self._read = _ReadManifest(stamp, _Manifest(), (), damaged=True)
            return self._read.manifest, self._read.requests

    def _parse(self, stamp: tuple[int, int, int], content: bytes) -> _ReadManifest:
        manifest = _Manifest.model_validate_json(content)
        requests: list[GenerationRequest] = []
        for sweep in manifest.sweeps:
            requests += [GenerationRequest(**fields) for fields in sweep.requests]
            if manifest.sha256 is None and sweep.id != _identify(map(digest, sweep.requests)):
                raise InvalidRequest(f"sweep {sweep.id} has other requests than it had")
        return _ReadManifest(stamp, manifest, tuple(requests))

    def _set_manifest_aside(self) -> None:
        """Set a damaged list of sweeps aside."""
        aside = self.path / SET_ASIDE
        try:
            aside.mkdir(exist_ok=True)
            self.manifest_path.replace(aside / f"{MANIFEST}.{secrets.token_hex(4)}")
        except OSError as error:
            raise unwritable(aside, error) from error


def printable(name: str) -> str:
    """Return a name that a manifest can hold and a page can show: one line, not too long."""
    valid = name.encode("utf-8", "replace").decode()  # a file's name may be no text
    return re.sub(r"[\x00-\x1f]+", " ", valid)[:NAME_MAX_CHARACTERS]


def _identify(keys: Iterable[str]) -> str:
    """Return the id of a sweep: a digest of the keys of its requests."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def refuse_run(folder: Path) -> None:
    """Reject a run folder as the location of another kind of report.

    Raises
    ------
    InvalidRequest
        When it holds a run.
    """
    if (folder / MANIFEST).exists():
        raise InvalidRequest(
            f"{folder} is a run and has a report of its own; give another folder",
            field="out",
            value=str(folder),
        )
