"""The checksums of a model folder's files, written when it is made."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from musicgen_lab.errors import ModelUnavailable

CHECKSUMS_FILE = "checksums.json"
CHECKSUMS_BYTES_MAX = 1_000_000
HEADER_BYTES_MAX = 16_000_000  # of a safetensors file; more is no header
CHANGED = "is not as it was when the model was prepared"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileChecksums(BaseModel):
    """The size and checksums of a file.

    Attributes
    ----------
    size : int
        In bytes.
    header_sha256 : str
        Of a safetensors file's names, shapes and places; of any other file, of all of it.
    sha256 : str
        Of all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    header_sha256: Sha256
    sha256: Sha256


class Checksums(BaseModel):
    """The checksums of every file of a model folder, by its path within the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, FileChecksums]


def write_checksums(folder: Path) -> None:
    """Write the checksums of a model folder's files into it."""
    files = {
        path.relative_to(folder).as_posix(): FileChecksums(
            size=path.stat().st_size, header_sha256=_header_sha256(path), sha256=file_sha256(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CHECKSUMS_FILE
    }
    content = Checksums(files=files).model_dump_json(indent=1)
    (folder / CHECKSUMS_FILE).write_text(f"{content}\n", encoding="utf-8")


def check_headers(folder: Path) -> None:
    """Reject a model folder whose files have other sizes or headers than when it was made.

    It takes milliseconds; numbers that changed in place are found by `verify`. A folder without
    checksums passes.

    Raises
    ------
    ModelUnavailable
        Naming the file.
    """
    checksums = _read(folder)
    if checksums is not None:
        _check_headers(folder, checksums)


def _check_headers(folder: Path, checksums: Checksums) -> None:
    for name, file in checksums.files.items():
        path = folder / name
        if not path.is_file():
            _refuse(path, "is missing")
        if path.stat().st_size != file.size or _header_sha256(path) != file.header_sha256:
            _refuse(path, CHANGED)


def files_written(folder: Path) -> set[str] | None:
    """Return the paths of the files that a conversion wrote; None for a folder without checksums.

    Raises
    ------
    ModelUnavailable
        When the checksums cannot be read.
    """
    checksums = _read(folder)
    return None if checksums is None else {CHECKSUMS_FILE, *checksums.files}


def verify(folder: Path) -> int:
    """Verify every file of a model folder against its full checksum.

    Returns
    -------
    int
        The number of files that were compared.

    Raises
    ------
    ModelUnavailable
        Naming the first file that is missing or differs; or when the folder has no checksums.
    """
    checksums = _read(folder)
    if checksums is None:
        raise ModelUnavailable(
            f"{folder} has no {CHECKSUMS_FILE}, which `musicgen-lab models prepare` writes; the "
            "revision of a folder that you name is the checksum of its content"
        )
    _check_headers(folder, checksums)
    for name, file in checksums.files.items():
        if file_sha256(folder / name) != file.sha256:
            _refuse(folder / name, CHANGED)
    return len(checksums.files)


def _read(folder: Path) -> Checksums | None:
    path = folder / CHECKSUMS_FILE
    try:
        if path.stat().st_size > CHECKSUMS_BYTES_MAX:
            raise ModelUnavailable(f"{path} is larger than {CHECKSUMS_BYTES_MAX:,} bytes")
        checksums = Checksums.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(
            f"{path} cannot be read ({type(error).__name__}); prepare the model again"
        ) from None
    root = folder.resolve()
    for name in checksums.files:
        if not (root / name).resolve().is_relative_to(root):
            raise ModelUnavailable(f"{path} names a file outside its folder, {name[:100]!r}")
    return checksums


def _refuse(path: Path, what: str) -> NoReturn:
    raise ModelUnavailable(f"{path} {what}; prepare the model again")


def _header_sha256(path: Path) -> str:
    """Hash a safetensors file's header, or any other file as a whole."""
    if path.suffix != ".safetensors":
        return file_sha256(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = min(int.from_bytes(start, "little"), HEADER_BYTES_MAX)
        return hashlib.file_digest(io.BytesIO(start + file.read(length)), "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
