"""`SoundChunk`: the sound of a clip, part by part while it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from musicgen_lab.clip import Clip, Failure, Samples
from musicgen_lab.errors import MusicGenLabError


@dataclass(frozen=True, eq=False)
class SoundChunk:
    """The next part of a clip's sound.

    Attributes
    ----------
    samples : np.ndarray [shape=(channels, n), dtype=float32]
        Full scale is 1.0. Together the chunks are the clip's samples within 1e-5: convolutions add
        in another order at another length. The last one may have none.
    sample_rate : int
        In Hz.
    start_s : float
        Where in the clip it begins, in seconds: where the chunk before it ends.
    steps_done, steps : int
        Of the language model, for the whole clip.
    total_samples : int
        Samples per channel of the whole clip.
    clip : Clip or None
        With the last chunk: the clip, whose samples are those that `generate` gives.
    """

    samples: Samples
    sample_rate: int
    start_s: float
    steps_done: int
    steps: int
    total_samples: int
    clip: Clip | None = None


OnChunk: TypeAlias = "Callable[[SoundChunk], None]"
"""Called with each chunk but the last, in the engine's thread: it should return at once."""


class ClipFailed(MusicGenLabError):
    """A clip that was being streamed and could not be finished.

    Parameters
    ----------
    failure : Failure
        The cause.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.error_type}: {failure.message}")
        self.failure = failure
