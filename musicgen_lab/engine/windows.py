"""`Window`: the part of a clip that the language model makes in one go.

A model is trained on clips of one length, its window. A longer clip is made as in audiocraft's
extended generation: each window begins `extend_stride` seconds after the one before it, with the
codes that are there already, and positions start again from 0. A clip that begins with given codes
takes them as the beginning of its first windows. Without torch, so that steps can be counted
without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig
from musicgen_lab.request import GenerationRequest


@dataclass(frozen=True)
class Window:
    """A window of a clip.

    Attributes
    ----------
    first : int
        Its first codec frame, counted from the beginning of the clip.
    frames : int
        Codec frames, the given ones included.
    given : int
        The frames at its beginning whose codes are there before it begins.
    start : int
        LM steps that are not sampled: their tokens are given.
    end : int
        LM steps in all.
    """

    first: int
    frames: int
    given: int
    start: int
    end: int

    @property
    def steps(self) -> int:
        """The LM steps to sample."""
        return self.end - self.start


def plan_windows(config: ModelConfig, request: GenerationRequest, given: int = 0) -> list[Window]:
    """Return the windows of a clip, in their order.

    Windows that consist of given frames only are left out. Frames are counted in whole numbers;
    audiocraft counts those of each window in floating point, so that with some durations its last
    window is a frame shorter, and with others it stops with an error.

    Parameters
    ----------
    config : ModelConfig
    request : GenerationRequest
    given : int
        Codec frames that the clip begins with.

    Raises
    ------
    InvalidRequest
        When nothing is left to generate, or `extend_stride` is not within a window.
    """
    total, longest = config.count_frames(request.duration), config.count_frames(config.window_s)
    if given >= total:
        raise InvalidRequest(
            f"duration must be more than the {given / config.frame_rate:g} seconds that the clip "
            f"begins with, which it includes, got {request.duration:g}",
            field="duration",
            value=request.duration,
        )
    stride = int(config.frame_rate * request.extend_stride)
    if total > longest and not 0 < stride < longest:
        raise InvalidRequest(
            f"extend_stride must be from {1 / config.frame_rate:g} to less than the model's window "
            f"of {config.window_s:g} seconds, got {request.extend_stride:g}",
            field="extend_stride",
            value=request.extend_stride,
        )
    windows: list[Window] = []
    first = 0
    while given < total:
        frames = min(total - first, longest)
        if first + frames > given:
            known = given - first
            start = known + config.delays[0] if known else 0
            windows.append(Window(first, frames, known, start, frames + config.delays[-1]))
            given = first + frames
        first += stride
    return windows


def count_steps(windows: list[Window]) -> int:
    """Return the LM steps to sample in all windows."""
    return sum(window.steps for window in windows)
