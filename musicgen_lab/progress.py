"""`ProgressBar`: how far a sweep is, in a terminal, a notebook or a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from musicgen_lab.request import GenerationRequest

LINES_MAX = 10  # of a log, beside the first
LINE_S = 1.0  # between two lines at least
BAR = "{percentage:3.0f}%|{bar}| {desc}, {elapsed} elapsed, {remaining} left"


def bars_are_seen() -> bool:
    """Say whether a bar can be drawn over and over: in a terminal or a notebook, not in a log."""
    from tqdm.auto import notebook_tqdm
    from tqdm.std import tqdm as terminal_tqdm

    return notebook_tqdm is not terminal_tqdm or sys.stderr.isatty()


class ProgressBar:
    """Seconds of sound made, clips finished and failed, and the time left.

    Until the first sound is made it counts the seconds of waiting for it. Clips of one batch finish
    together, so it moves with the sound in the making where the backend reports that, and with
    finished clips where it does not. Off a terminal and a notebook it writes a few lines.

    Parameters
    ----------
    requests : sequence of GenerationRequest
        What is to be made.
    shown : bool
    waiting : str
        What is waited for until the first sound is made.
    """

    def __init__(
        self,
        requests: Sequence[GenerationRequest],
        *,
        shown: bool,
        waiting: str = "opening the model",
    ) -> None:
        from tqdm.auto import tqdm

        self._clips = len(requests)
        self._total_s = sum(request.new_s for request in requests)
        self._done = self._failed = 0
        self._finished_s = self._making_s = 0.0
        self._waiting, self._started = waiting, threading.Event()
        self._opened_at = self._first_at = self._line_at = time.time()
        is_bar = bars_are_seen()
        self._lines_left = LINES_MAX if shown and not is_bar else 0
        self._bar = tqdm(total=self._total_s, disable=not (shown and is_bar), bar_format="{desc}")
        if shown and not is_bar:
            print(waiting, file=sys.stderr, flush=True)
        if shown and is_bar:
            self._show_waiting()
            threading.Thread(target=self._tick, name="progress", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._started.set()
        self._bar.close()

    @property
    def unfinished_s(self) -> float:
        """Seconds of sound made of clips that are not finished."""
        return max(0.0, self._making_s - self._finished_s)

    def advance(self, seconds: float) -> None:
        """Count sound that was made, of clips that may not be finished."""
        self._start()
        self._making_s += seconds
        self._show()

    def finish(self, request: GenerationRequest, *, failed: bool) -> None:
        """Count a clip that is finished or has failed."""
        self._start()
        self._done += 1
        self._failed += failed
        self._finished_s += request.new_s
        self._show()

    def _start(self) -> None:
        """End the waiting: the time that it took says nothing about the time left."""
        if not self._started.is_set():
            self._started.set()
            self._first_at = self._line_at = time.time()
            self._bar.bar_format = BAR
            self._bar.last_print_t = self._first_at

    def _tick(self) -> None:
        while not self._started.wait(1.0):
            self._show_waiting()

    def _show_waiting(self) -> None:
        waited_s = time.time() - self._opened_at
        self._bar.set_description_str(f"{self._waiting} ({waited_s:.0f} s)")

    def _show(self) -> None:
        """Show the progress that is certain; it never decreases."""
        made_s = min(max(self._finished_s, self._making_s), self._total_s)
        failed = f", {self._failed} failed" if self._failed else ""
        text = (
            f"{made_s:,.0f} of {self._total_s:,.0f} s of sound, "
            f"{self._done} of {self._clips} clips{failed}"
        )
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(max(0.0, made_s - self._bar.n))
        if self._lines_left:
            self._write_line(text, made_s)

    def _write_line(self, text: str, made_s: float) -> None:
        """Write a line at every tenth of the sound, not too often, and when all is done."""
        now, is_last = time.time(), self._done == self._clips
        next_s = self._total_s * (LINES_MAX + 1 - self._lines_left) / LINES_MAX
        is_due = next_s <= made_s < self._total_s and now - self._line_at >= LINE_S
        if not is_due and not is_last:
            return
        self._line_at = now
        self._lines_left = 0 if is_last else LINES_MAX - int(LINES_MAX * made_s / self._total_s)
        left_s = (now - self._first_at) * (self._total_s - made_s) / made_s if made_s else 0.0
        times = f"{now - self._opened_at:,.0f} s elapsed, {left_s:,.0f} s left"
        print(f"{text}, {times}", file=sys.stderr, flush=True)
