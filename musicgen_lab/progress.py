"""`ProgressBar`: how far a sweep is, in a terminal or a notebook."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from musicgen_lab.request import GenerationRequest


class ProgressBar:
    """Seconds of audio made, with clips done and failed, and the time left.

    Clips of one batch finish together, so the bar moves with the audio in the making where the
    backend tells, and with finished clips where it does not.

    Parameters
    ----------
    requests : sequence of GenerationRequest
        What is to be made.
    shown : bool
    """

    def __init__(self, requests: Sequence[GenerationRequest], *, shown: bool) -> None:
        from tqdm.auto import tqdm

        self._clips = len(requests)
        self._done = self._failed = 0
        self._finished_s = self._making_s = 0.0
        self._bar = tqdm(
            total=sum(request.duration for request in requests),
            disable=not shown,
            bar_format="{percentage:3.0f}%|{bar}| {desc}, {elapsed} gone, {remaining} left",
        )
        self._show()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, seconds: float) -> None:
        """Count audio that was made, of clips that may not be finished."""
        if self._making_s == 0:  # opening the model took the time so far: it tells nothing
            self._bar.last_print_t = time.time()
        self._making_s += seconds
        self._show()

    def finish(self, request: GenerationRequest, *, failed: bool) -> None:
        """Count a clip that is finished or has failed."""
        self._done += 1
        self._failed += failed
        self._finished_s += request.duration
        self._show()

    def _show(self) -> None:
        """Move the bar to what is surely made; it never goes back."""
        made_s = min(max(self._finished_s, self._making_s), self._bar.total)
        failed = f", {self._failed} failed" if self._failed else ""
        self._bar.set_description_str(f"{self._done} of {self._clips} clips{failed}", refresh=False)
        self._bar.update(max(0.0, made_s - self._bar.n))
