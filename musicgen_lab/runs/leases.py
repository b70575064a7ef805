"""`Leases`: who makes which clip, among the processes that share a run folder.

A lease is a lock on one byte of a file, at an offset computed from the clip's key. The system
releases it when its process ends, however it ends, so a lease never outlives its holder. Byte-range
locks also work between machines on a network folder whose server supports them (NFS, SMB); where
there are none, every lease is granted and a clip may be made twice, which does no harm.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from musicgen_lab.runs.atomic_io import unwritable

try:
    import fcntl
except ImportError:  # Windows: every lease is granted
    fcntl = None  # type: ignore[assignment]

LEASES_FILE = ".leases"
KEY_DIGITS = 15  # of 64 hexadecimal ones: 60 bits, as many as an offset can have
HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)


@dataclass
class _LeaseFile:
    """A file of leases that this process has open; its locks belong to the process as a whole."""

    descriptor: int
    users: int = 0
    held: set[str] = field(default_factory=set)


_open_files: dict[tuple[int, int, int], _LeaseFile] = {}
"""By process (a fork inherits no locks), device and inode."""
_guard = threading.Lock()


class Leases:
    """The leases of one sweep in a folder, released together at the end of a `with` block.

    Two sweeps in one process exclude each other as two processes do.

    Parameters
    ----------
    folder : Path
        Of the clips.

    Raises
    ------
    RunFolderUnwritable
        On entering, when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEASES_FILE
        self._own: set[str] = set()

    def __enter__(self) -> Self:
        with _guard:
            try:
                if not self._path.exists():  # opening and closing it would drop all locks on it
                    with suppress(FileExistsError):
                        self._path.open("xb").close()
                status = self._path.stat()
                self._id = (os.getpid(), status.st_dev, status.st_ino)
                if self._id not in _open_files:
                    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
                    _open_files[self._id] = _LeaseFile(os.open(self._path, flags))
            except OSError as error:
                raise unwritable(self._path.parent, error) from error
            self._file = _open_files[self._id]
            self._file.users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in list(self._own):
            self.release(key)
        with _guard:
            self._file.users -= 1
            if self._file.users == 0:  # closing any sooner would drop the locks of other sweeps
                del _open_files[self._id]
                os.close(self._file.descriptor)

    def take(self, key: str) -> bool:
        """Take the lease of a clip, without waiting.

        Parameters
        ----------
        key : str
            Of the clip's request.

        Returns
        -------
        bool
            Whether this sweep has it now, or had it before; False when another one has it.
        """
        if key in self._own:
            return True
        with _guard:
            if key in self._file.held or not _lock(self._file.descriptor, key):
                return False
            self._file.held.add(key)
            self._own.add(key)
        return True

    def release(self, key: str) -> None:
        """Give up the lease of a clip, if this sweep has it."""
        with _guard:
            if key not in self._own:
                return
            self._own.remove(key)
            self._file.held.discard(key)
            if fcntl is not None:
                fcntl.lockf(self._file.descriptor, fcntl.LOCK_UN, 1, _offset(key))


def _lock(descriptor: int, key: str) -> bool:
    """Lock a key's byte, and say whether that worked; True also where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
    except OSError as error:
        return error.errno not in HELD_ELSEWHERE
    return True


def _offset(key: str) -> int:
    return int(key[:KEY_DIGITS], 16)
