"""`RecentClips`: the clips that the live page made lately, so that they can be kept."""

from __future__ import annotations

import threading
from collections import OrderedDict

from musicgen_lab.clip import Clip

BYTES_MAX = 512 * 1024 * 1024


class RecentClips:
    """The last clips by key, up to a number of bytes (`Clip.nbytes`).

    Parameters
    ----------
    bytes_max : int
        The oldest clips are forgotten beyond it.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max, self._bytes = bytes_max, 0
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, clip: Clip) -> None:
        """Take a clip in, and forget the oldest ones if there are too many."""
        key = clip.request.key()
        with self._lock:
            previous = self._clips.pop(key, None)
            self._bytes += clip.nbytes - (previous.nbytes if previous else 0)
            self._clips[key] = clip
            while self._bytes > self._bytes_max:
                _, oldest = self._clips.popitem(last=False)
                self._bytes -= oldest.nbytes

    def get(self, key: str) -> Clip | None:
        """Return the clip of a request's key; None if it was not made, or is forgotten."""
        with self._lock:
            return self._clips.get(key)
