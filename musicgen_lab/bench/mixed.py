"""The cost of mixed durations, relative to the same steps in a batch that is always full."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from musicgen_lab.bench.run import PROMPT
from musicgen_lab.engine.options import DEFAULT_OPTIONS, EngineOptions
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.engine.engine import Engine

CLIPS = 25
SHORTEST_S, LONGEST_S = 1.0, 30.0  # the durations are spread evenly between them, in a fixed order


@dataclass(frozen=True)
class MixedCost:
    """The cost of mixed durations.

    Attributes
    ----------
    clips, max_clips : int
    longest_s : float
        The durations are between 1 s and this.
    took_s : float
        The measured time of the clips.
    full_s : float
        The time of their steps and decoding in a batch whose slots are all occupied.
    """

    clips: int
    max_clips: int
    longest_s: float
    took_s: float
    full_s: float

    def __str__(self) -> str:
        return (
            f"{self.clips} clips of 1 to {self.longest_s:g} s in {self.max_clips} slots took "
            f"{self.took_s:.1f} s, {self.ratio:.2f} times the cost of their steps in a full batch"
        )

    @property
    def ratio(self) -> float:
        """The time relative to a full batch."""
        return self.took_s / self.full_s


def measure_mixed(model: Path, *, options: EngineOptions = DEFAULT_OPTIONS) -> MixedCost:
    """Time clips of mixed durations, and a full batch of the longest ones beside it.

    Parameters
    ----------
    model : Path
        A model folder.
    options : EngineOptions

    Returns
    -------
    MixedCost
    """
    from musicgen_lab.engine.engine import Engine

    engine = Engine.open(model, options)
    durations = np.linspace(SHORTEST_S, LONGEST_S, CLIPS)
    durations = np.random.default_rng(0).permutation(durations)
    _time_steps(engine, [SHORTEST_S])  # a warm-up
    full = _time_steps(engine, [LONGEST_S] * engine.max_clips) / engine.max_clips
    # The last step decodes; a clip's share of that goes by its length.
    made, decoded_s = np.cumsum(full[:-1]), full[-1] / LONGEST_S
    steps = [min(round(d * engine.config.frame_rate), len(made)) for d in durations]
    full_s = sum(made[n - 1] + decoded_s * d for n, d in zip(steps, durations, strict=True))
    took_s = _time_steps(engine, durations).sum()
    return MixedCost(CLIPS, engine.max_clips, LONGEST_S, float(took_s), float(full_s))


def _time_steps(engine: Engine, durations_s: Iterable[float]) -> npt.NDArray[np.float64]:
    """Make clips, and return the seconds that every step took: (steps,)."""
    from musicgen_lab.engine.device import wait_for

    waiting = 0
    for seed, duration_s in enumerate(durations_s):
        engine.add_request(GenerationRequest(prompt=PROMPT, duration=float(duration_s), seed=seed))
        waiting += 1
    times = []
    while waiting:
        started_s = time.perf_counter()
        waiting -= len(engine.step())
        wait_for(engine.transformer.device)
        times.append(time.perf_counter() - started_s)
    return np.array(times)
