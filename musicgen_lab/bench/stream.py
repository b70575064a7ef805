"""How soon a streamed clip is heard, and whether it is made faster than it is played."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen_lab.bench.run import WARM_UP_S, check_at_least, make_work
from musicgen_lab.clip import Failure
from musicgen_lab.engine.options import DEFAULT_OPTIONS, EngineOptions
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.backends.worker import EngineWorker


@dataclass(frozen=True)
class StreamCost:
    """What listeners of streams that are made at once experience.

    Attributes
    ----------
    clips : int
        Listeners, each of whom plays a clip from its first chunk on.
    seconds : float
        Length of every clip.
    first_s : float
        Seconds from the request to the first chunk, the median of all rounds and listeners.
    first_steps : int
        Steps that were done then, at most.
    chunks : float
        Per clip.
    realtime : float
        Seconds of sound of one clip per second until its last chunk, at least.
    silent_s : float
        Seconds for which a listener waited for the next chunk, at most.
    """

    clips: int
    seconds: float
    first_s: float
    first_steps: int
    chunks: float
    realtime: float
    silent_s: float

    def __str__(self) -> str:
        waited = f"waited {self.silent_s:.3f} s for more" if self.silent_s else "never waited"
        return (
            f"{self.clips} streams of {self.seconds:g} s: first sound after {self.first_s:.3f} s "
            f"({self.first_steps} steps), {self.chunks:.0f} chunks, {self.realtime:.2f} times as "
            f"fast as played, listeners {waited}"
        )


@dataclass
class Listener:
    """Plays a clip from its first chunk on; times are in seconds since the request."""

    first_s: float = 0.0
    first_steps: int = 0
    plays_until_s: float = 0.0
    silent_s: float = 0.0
    chunks: int = 0
    last_s: float = 0.0

    def hear(self, now_s: float, lasts_s: float, steps_done: int) -> None:
        """Take the next chunk at a time, of a length, after some steps of the clip."""
        if self.chunks == 0:
            self.first_s, self.first_steps, self.plays_until_s = now_s, steps_done, now_s
        self.silent_s += max(now_s - self.plays_until_s, 0.0)
        self.plays_until_s = max(now_s, self.plays_until_s) + lasts_s
        self.chunks, self.last_s = self.chunks + 1, now_s


def measure_streams(
    model: Path,
    *,
    clips: int = 1,
    grid: tuple[int, int] | None = None,
    seconds: float = 8.0,
    rounds: int = 3,
    options: EngineOptions = DEFAULT_OPTIONS,
) -> StreamCost:
    """Stream clips at once from an engine that is open, after a warm-up.

    Parameters
    ----------
    model : Path
        A model folder.
    clips, grid, seconds
        The work, as in `run`.
    rounds : int
    options : EngineOptions

    Raises
    ------
    InvalidRequest
        When there are no rounds or no clips.
    """
    check_at_least("rounds", rounds, 1)
    work = make_work(clips, grid, seconds)
    from musicgen_lab.backends.worker import EngineWorker
    from musicgen_lab.engine.engine import Engine

    worker = EngineWorker(Engine.open(model, options), "bench@1")
    listeners: list[Listener] = []
    try:
        _listen(worker, make_work(clips, grid, WARM_UP_S))
        for _ in range(rounds):
            listeners += _listen(worker, work)
    finally:
        worker.close()
    return StreamCost(
        clips=len(work),
        seconds=seconds,
        first_s=statistics.median(each.first_s for each in listeners),
        first_steps=max(each.first_steps for each in listeners),
        chunks=statistics.mean(each.chunks for each in listeners),
        realtime=min(seconds / each.last_s for each in listeners),
        silent_s=max(each.silent_s for each in listeners),
    )


def _listen(worker: EngineWorker, work: Sequence[GenerationRequest]) -> list[Listener]:
    listeners = [Listener() for _ in work]
    started_s = time.perf_counter()
    for index, chunk in worker.stream_all(work):
        if isinstance(chunk, Failure):
            raise RuntimeError(f"{chunk.error_type}: {chunk.message}")
        if chunk.clip is None:
            lasts_s = chunk.samples.shape[1] / chunk.sample_rate
            listeners[index].hear(time.perf_counter() - started_s, lasts_s, chunk.steps_done)
    return listeners
