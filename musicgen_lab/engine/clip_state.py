"""`ClipState`: a clip that is being made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from musicgen_lab.clip import Clip, Failure, Provenance
from musicgen_lab.engine.windows import Window, count_steps
from musicgen_lab.request import GenerationRequest


@dataclass(eq=False)
class ClipRow:
    """A row of a clip.

    Attributes
    ----------
    text : str
        That it attends to; "" for none.
    blocks : list of int
        Cache blocks of its steps.
    text_blocks : list of int
        Cache blocks of the text, which other rows may share; empty without a text.
    text_tokens : int
    """

    text: str
    blocks: list[int]
    text_blocks: list[int] = field(default_factory=list)
    text_tokens: int = 0


@dataclass(eq=False)
class ClipState:
    """A running clip.

    Attributes
    ----------
    request_id : int
    request : GenerationRequest
    slot : int
        Its row in the tables of `DecodeState`.
    windows : list of Window
        From `plan_windows`.
    rows : list of ClipRow
        In the order of `row_texts`.
    codes : Tensor
        (K, frames) all codes that were there before the current window began.
    spent_s : float
        Its share of the engine's time so far: a step's time is divided among its clips.
    steps_done : int
        Sampled in all windows so far.
    window_index : int
        The current window.
    position : int
        LM steps of the current window so far, the given ones included: those whose keys and values
        are cached.
    """

    request_id: int
    request: GenerationRequest
    slot: int
    windows: list[Window]
    rows: list[ClipRow]
    codes: Tensor
    spent_s: float = 0.0
    steps_done: int = 0
    window_index: int = 0
    position: int = 0

    @property
    def window(self) -> Window:
        """The current window."""
        return self.windows[self.window_index]

    @property
    def steps(self) -> int:
        """Steps to sample in all windows."""
        return count_steps(self.windows)

    @property
    def frames(self) -> int:
        """Codec frames of the whole clip, the given ones included."""
        return self.windows[-1].first + self.windows[-1].frames

    @property
    def first_frame(self) -> int:
        """The first frame of the result: 0, or the one after those that it leaves out."""
        given = self.windows[0].first + self.windows[0].given
        return 0 if self.request.include_start else given

    @property
    def is_prefilling(self) -> bool:
        """Whether given steps of the current window are left to compute."""
        return self.position < self.window.start

    @property
    def ends_window(self) -> bool:
        """Whether the current window is complete."""
        return self.position == self.window.end

    @property
    def is_complete(self) -> bool:
        """Whether all windows are."""
        return self.ends_window and self.window_index == len(self.windows) - 1

    def finish(
        self,
        sound: Tensor,
        codes: Tensor,
        sample_rate: int,
        provenance: Provenance,
        *,
        finite: bool,
    ) -> Clip | Failure:
        """Return the clip, or a failure if a number is not finite.

        Parameters
        ----------
        sound : Tensor
            (channels, n)
        codes : Tensor
            (K, frames)
        sample_rate : int
            In Hz.
        provenance : Provenance
        finite : bool
            Whether the logits of all steps were finite.
        """
        samples = sound.numpy().astype(np.float32, copy=False)
        if not finite or not np.isfinite(samples).all():
            return self.fail(ArithmeticError("the model's output is not finite"))
        kept = codes.cpu().numpy().astype(np.uint16)
        return Clip(self.request, samples, sample_rate, provenance, self.spent_s, kept)

    def fail(self, error: Exception) -> Failure:
        """Return this clip's failure for an error."""
        return Failure.from_error(self.request, error, self.spent_s)


@contextmanager
def shared_time(clips: Sequence[ClipState]) -> Iterator[None]:
    """Divide the time that a block takes, whether it fails or not, among clips."""
    started_s = time.perf_counter()
    try:
        yield
    finally:
        share_s = (time.perf_counter() - started_s) / len(clips)
        for clip in clips:
            clip.spent_s += share_s
