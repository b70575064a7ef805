"""Atomic writes of files, and the locking of a folder that several processes share."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from musicgen_lab.errors import RunFolderUnwritable

LOCK_TIMEOUT_S = 60.0
STALE_TEMPORARY_S = 3600.0  # an unfinished file of that age is no longer being written


class UnreadableFile(ValueError):
    """A file that is not read: a link out of the folder, not a regular file, or far too large."""


def read_file(path: Path, *, root: Path, max_bytes: int) -> bytes:
    """Read a file that may be untrusted.

    Parameters
    ----------
    path : Path
    root : Path
        The folder that the file must really be in: links within it are followed.
    max_bytes : int
        What a file of its kind can be at most.

    Raises
    ------
    UnreadableFile
        When it is a link that leaves `root`, a pipe or a device, or larger than `max_bytes`.
    OSError
        When it is missing or cannot be read.
    """
    real = path.resolve(strict=True)
    if not real.is_relative_to(root.resolve()):
        raise UnreadableFile("it is a link that leaves the folder")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(real, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableFile("it is not a plain file")
        if status.st_size > max_bytes:
            raise UnreadableFile(f"it has {status.st_size:,} bytes, more than {max_bytes:,}")
        return file.read(max_bytes)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; the system releases the lock if this one dies.

    Raises
    ------
    RunFolderUnwritable
        When the folder is gone or cannot be written, or another process keeps it locked. The
        message names that process.
    """
    path = folder / ".lock"
    try:
        if not folder.is_dir():  # the lock would make it anew
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        lock = _lock_of(path).acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise RunFolderUnwritable(
            f"{folder} has been locked for {LOCK_TIMEOUT_S:g} s by {_lock_holder(path)}; end that "
            "process if it hangs, and run the same command again: finished clips are kept"
        ) from error
    except OSError as error:
        raise unwritable(folder, error) from error
    with lock:
        _sign(path)
        yield


def _sign(path: Path) -> None:
    """Write the lock's owner to its file, for the error message of a process that waits in vain."""
    with contextlib.suppress(OSError):  # a full disk, or Windows
        flags = os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags), "w") as file:
            file.write(f"process {os.getpid()} on {socket.gethostname()}")


def _lock_holder(path: Path) -> str:
    """Return the owner of a lock, as written in its file."""
    try:
        return read_file(path, root=path.parent, max_bytes=1000).decode() or "another process"
    except (OSError, ValueError):
        return "another process"


@functools.lru_cache(maxsize=256)
def _lock_of(path: Path) -> FileLock:
    """Cache a folder's lock object: a Ctrl-C during its finalizer would be swallowed."""
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
        temporary = stage(path, content)
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
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


def remove_leftovers(folder: Path) -> None:
    """Delete unfinished files that killed processes left in a folder long ago."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.lstat().st_mtime > STALE_TEMPORARY_S:
                path.unlink()
        except OSError:
            continue  # gone already, or not ours to delete


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
