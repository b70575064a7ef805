"""`SourceStore`: the sounds that clients have sent to begin clips with, for a while."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from musicgen_lab.backends.submitting import Busy
from musicgen_lab.source import Source
from musicgen_lab.web.settings import WebSettings

UPLOADS_AT_ONCE = 4  # so that bodies which are being read take up little memory
KEPT_MAX_BYTES = 256 * 1024**2  # of all sources together


@dataclass
class _Kept:
    source: Source
    used_s: float  # by the monotonic clock


class SourceStore:
    """Sources by digest, kept in memory; those not used for the longest time are dropped first.

    A source is found by its digest alone, which only those know who have its content.

    Parameters
    ----------
    settings : WebSettings
    """

    def __init__(self, settings: WebSettings) -> None:
        self._kept_s = settings.jobs_kept_s
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # the least recently used first
        self._uploading = 0
        self._lock = threading.Lock()

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Count an upload while its body is read.

        Raises
        ------
        Busy
            When too many are being read.
        """
        with self._lock:
            if self._uploading >= UPLOADS_AT_ONCE:
                raise Busy(f"{self._uploading} sounds are being received, which is the limit")
            self._uploading += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploading -= 1

    def put(self, source: Source) -> None:
        """Keep a source."""
        with self._lock:
            self._kept[source.digest] = _Kept(source, time.monotonic())
            self._kept.move_to_end(source.digest)
            self._drop()

    def get(self, digest: str) -> Source | None:
        """Return the source of a digest; None if it is not kept (any more)."""
        with self._lock:
            self._drop()
            kept = self._kept.get(digest)
            if kept is None:
                return None
            kept.used_s = time.monotonic()
            self._kept.move_to_end(digest)
            return kept.source

    def _drop(self) -> None:
        total = sum(kept.source.nbytes for kept in self._kept.values())
        oldest_s = time.monotonic() - self._kept_s
        for digest, kept in list(self._kept.items()):
            if total <= KEPT_MAX_BYTES and kept.used_s > oldest_s:
                return
            total -= kept.source.nbytes
            del self._kept[digest]
