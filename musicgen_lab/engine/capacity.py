"""`Capacity`: how many clips a memory holds at once, by the engine's own arithmetic.

Keys and values are cached in blocks of a fixed number of steps. A clip gets the blocks of its
longest window before its first step, so that it never runs out of them, and waits until as many are
free. Without torch, so that it can be counted on a machine that has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from musicgen_lab.limits import DURATION_MIN_S
from musicgen_lab.models.config import ModelConfig

GIB = 2**30
GPU_BLOCK_LEN = 64  # steps, or tokens of a prompt
ROWS_PER_CLIP = 2  # with the prompt and without it
ROWS_PER_CLIP_MAX = 3  # of two prompts that are mixed
PROMPT_TOKENS_USUAL = 64  # what most prompts stay under
AUTO_CLIPS_MAX = 32  # on a CPU
AUTO_CLIPS_MAX_GPU = 64  # where more clips at once take less time each

# What is needed beside the language model's weights and the cache:
_ENCODER_BYTES = int(0.45 * GIB)  # T5-base's encoder, float32
_CODEC_BYTES = int(0.25 * GIB)  # EnCodec's weights, float32
_WORKSPACE_BYTES = int(2.0 * GIB)  # decoding sound, and what recorded steps keep
BESIDE_BYTES = _ENCODER_BYTES + _CODEC_BYTES + _WORKSPACE_BYTES
CACHE_SHARE = 0.95  # of what is left; the rest is lost between allocations


@dataclass(frozen=True)
class Capacity:
    """The number of clips and of cache blocks of an engine.

    Attributes
    ----------
    config : ModelConfig
    max_clips : int
        The most clips made at once.
    blocks : int
        Of the whole cache, shared by clips and prompts.
    block_len : int
        Steps, or tokens of a prompt, in a block.
    """

    config: ModelConfig
    max_clips: int
    blocks: int
    block_len: int

    @property
    def max_rows(self) -> int:
        """The most rows at once: two for each clip, but at least those of one clip."""
        return max(ROWS_PER_CLIP * self.max_clips, ROWS_PER_CLIP_MAX)

    def count_blocks(self, steps: int) -> int:
        """Return the number of blocks for a row's steps, or for a prompt's tokens."""
        return math.ceil(steps / self.block_len)

    def clip_blocks(
        self,
        duration_s: float,
        prompt_tokens: int = PROMPT_TOKENS_USUAL,
        *,
        rows: int = ROWS_PER_CLIP,
        texts: int = 1,
    ) -> int:
        """Return the number of blocks of a clip: usually two rows and its prompt."""
        steps = self.config.count_steps(min(duration_s, self.config.window_s))
        return rows * self.count_blocks(steps) + texts * self.count_blocks(prompt_tokens)

    def most_clip_blocks(self) -> int:
        """Return the number of blocks of a clip of three rows, each with a text of usual length."""
        return ROWS_PER_CLIP_MAX * (
            self.count_blocks(self.config.max_steps) + self.count_blocks(PROMPT_TOKENS_USUAL)
        )

    def clips(self, duration_s: float, prompt_tokens: int = PROMPT_TOKENS_USUAL) -> int:
        """Return how many clips of a duration fit at once, each with its own prompt."""
        return min(self.blocks // self.clip_blocks(duration_s, prompt_tokens), self.max_clips)


def weight_bytes(config: ModelConfig, dtype_bytes: int) -> int:
    """Return the memory of the language model's weights."""
    return config.parameters * dtype_bytes


def block_bytes(config: ModelConfig, dtype_bytes: int, block_len: int) -> int:
    """Return the memory of a block: the keys and values of all layers."""
    return 2 * config.layers * config.dim * dtype_bytes * block_len


def plan_capacity(
    config: ModelConfig,
    cache_bytes: int,
    *,
    dtype_bytes: int,
    block_len: int = GPU_BLOCK_LEN,
    max_clips: int | Literal["auto"] = "auto",
    auto_clips: int = AUTO_CLIPS_MAX_GPU,
) -> Capacity:
    """Divide memory into blocks: as many as fit, but no more than the longest clips need.

    Parameters
    ----------
    config : ModelConfig
    cache_bytes : int
        The memory for cached keys and values.
    dtype_bytes : int
        Of one element of the cache.
    block_len : int
        Steps in a block.
    max_clips : int or "auto"
        The most clips made at once, if as many of the shortest fit.
    auto_clips : int
        What "auto" is.

    Returns
    -------
    Capacity
        With 0 clips if not even one of maximum length fits.
    """
    blocks = cache_bytes // block_bytes(config, dtype_bytes, block_len)
    whole = Capacity(config, blocks, blocks, block_len)
    if whole.clips(config.window_s, config.max_steps) < 1:
        return Capacity(config, 0, 0, block_len)
    fitting = whole.clips(DURATION_MIN_S)
    clips = min(fitting, auto_clips if max_clips == "auto" else max_clips)
    enough = max(
        clips * whole.clip_blocks(config.window_s),
        whole.clip_blocks(config.window_s, config.max_steps),  # one of any length and prompt
        whole.most_clip_blocks(),
    )
    return Capacity(config, clips, min(blocks, enough), block_len)
