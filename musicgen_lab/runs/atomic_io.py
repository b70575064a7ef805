"""Files that are there whole or not at all, and a folder that two processes can share."""

from __future__ import annotations

import errno
import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from musicgen_lab.errors import RunFolderUnwritable

LOCK_TIMEOUT_S = 60.0


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock if this one dies."""
    try:
        lock = _lock_of(folder / ".lock").acquire(timeout=LOCK_TIMEOUT_S)
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        yield


@functools.lru_cache(maxsize=256)
def _lock_of(path: Path) -> FileLock:
    """Keep a folder's lock object: a Ctrl-C that meets the end of one's life would be swallowed."""
    return FileLock(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: under a temporary name, then renamed.

    Raises
    ------
    RunFolderUnwritable
        When the folder is read-only or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stage(path, content).replace(path)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def stage(path: Path, content: bytes) -> Path:
    """Write content to a temporary file in the same folder and return it, to be renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def unwritable(folder: Path, error: OSError) -> RunFolderUnwritable:
    """Return the error for a folder that cannot be written, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunFolderUnwritable(
            f"no space left for {folder} ({error.strerror}); finished clips are kept: "
            "free some space and run the same command again"
        )
    return RunFolderUnwritable(
        f"cannot write to {folder} ({error.strerror or error}); finished clips are kept: "
        "give a folder that can be written"
    )


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Return the modification time in ns, size in bytes and inode, which change on replacement."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def sync_folder(folder: Path) -> None:
    """Flush a folder's renames to disk, where the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
