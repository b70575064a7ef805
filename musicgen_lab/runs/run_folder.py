"""`RunFolder`: a sweep on disk: its requests, the clips, and derived files."""

from __future__ import annotations

import hashlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning, RunFolderError
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.atomic_io import file_stamp, folder_lock, unwritable, write_atomically
from musicgen_lab.runs.clip_store import ClipStore
from musicgen_lab.version import VERSION

MANIFEST = "sweep.json"


class AskedSweep(BaseModel):
    """One sweep as recorded in a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    asked_at: str
    lab_version: str
    design: dict[str, Any]
    requests: list[dict[str, Any]]


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["musicgen-lab run 1"] = "musicgen-lab run 1"
    sweeps: list[AskedSweep] = []


class _ReadManifest(NamedTuple):
    """A manifest that was read or written, and the file it stands for."""

    stamp: tuple[int, int, int]
    manifest: _Manifest
    requests: tuple[GenerationRequest, ...]


class RunFolder:
    """The folder of a run. Sweeps asked of the same folder share its clips.

    Parameters
    ----------
    path : str or Path
        May be missing or empty: `create` makes it.

    Attributes
    ----------
    store : ClipStore
        The clips.

    Raises
    ------
    RunFolderError
        When the folder holds another kind of thing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.store = ClipStore(self.path / "clips")
        self._read: _ReadManifest | None = None
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
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.store.sweep_leftovers()

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
        """Record a sweep before it runs; recording the same one again adds nothing."""
        keys = "\n".join(request.key() for request in requests)
        identity = hashlib.sha256(keys.encode()).hexdigest()[:16]
        with folder_lock(self.path):
            manifest, known = self._read_manifest()
            if any(sweep.id == identity for sweep in manifest.sweeps):
                return
            sweep = AskedSweep(
                id=identity,
                asked_at=datetime.now(UTC).isoformat(timespec="seconds"),
                lab_version=VERSION,
                design=dict(design),
                requests=[request.model_dump() for request in requests],
            )
            manifest = _Manifest(sweeps=[*manifest.sweeps, sweep])
            write_atomically(self.manifest_path, manifest.model_dump_json(indent=1).encode())
            self._read = _ReadManifest(
                file_stamp(self.manifest_path), manifest, (*known, *requests)
            )

    def asked(self) -> list[GenerationRequest]:
        """Return all requests of this folder's sweeps, in order, without duplicates."""
        _, requests = self._read_manifest()
        return list({request.key(): request for request in requests}.values())

    def _check_kind(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file; give the path of a folder for the run")
        if self.manifest_path.exists():
            self._read_manifest()
        elif self.path.is_dir():
            strangers = [
                path.name
                for path in self.path.iterdir()
                if not path.name.startswith(".") and path.name not in ("clips", "set-aside")
            ]
            if strangers:
                raise RunFolderError(
                    f"{self.path} holds something else ({', '.join(sorted(strangers)[:3])}); "
                    "give a new or empty folder, or one that a sweep made"
                )

    def _read_manifest(self) -> tuple[_Manifest, tuple[GenerationRequest, ...]]:
        """Return the manifest and its requests; they are read once and again when it changes."""
        try:
            stamp = file_stamp(self.manifest_path)
            if self._read is None or self._read.stamp != stamp:
                manifest = _Manifest.model_validate_json(self.manifest_path.read_bytes())
                requests = tuple(
                    GenerationRequest(**fields)
                    for sweep in manifest.sweeps
                    for fields in sweep.requests
                )
                self._read = _ReadManifest(stamp, manifest, requests)
            return self._read.manifest, self._read.requests
        except FileNotFoundError:
            return _Manifest(), ()
        except OSError as error:
            raise RunFolderError(f"cannot read {self.manifest_path}: {error.strerror}") from error
        except (ValidationError, InvalidRequest) as error:
            if not any(self.store.folder.glob("*.json")):
                raise RunFolderError(
                    f"{self.manifest_path} is damaged or was not written by a sweep; "
                    "give another folder"
                ) from error
            return self._set_manifest_aside(), ()

    def _set_manifest_aside(self) -> _Manifest:
        """Go on without a damaged list of sweeps: the clips' own records say what they are."""
        aside = self.path / "set-aside"
        warnings.warn(
            f"{self.manifest_path.name} is damaged; moved to {aside}. The clips are kept",
            MusicGenLabWarning,
            stacklevel=2,
        )
        try:
            aside.mkdir(exist_ok=True)
            self.manifest_path.replace(aside / f"{MANIFEST}.{secrets.token_hex(4)}")
            write_atomically(self.manifest_path, _Manifest().model_dump_json(indent=1).encode())
        except OSError as error:
            raise unwritable(aside, error) from error
        return _Manifest()


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
