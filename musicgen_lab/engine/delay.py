"""The delay pattern: how codebooks that lag behind each other share one sequence.

At sequence step `s` codebook `k` holds the code of frame `s - 1 - delays[k]`; where there is no
such frame it holds the special token. Step 0 holds special tokens alone. With frames 0-3 and delays
0, 1, 2 the sequence is::

    S 0 1 2 3 S S
    S S 0 1 2 3 S
    S S S 0 1 2 3
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def codes_are_due(step: Tensor, frames: Tensor, delays: Tensor) -> Tensor:
    """Say which codebooks have a code to make in a step; the others get the special token.

    Parameters
    ----------
    step, frames : Tensor
        (B,) steps made so far, and frames of the whole clip.
    delays : Tensor
        (K,)

    Returns
    -------
    Tensor
        (B, K) of bool.
    """
    frame = step[:, None] - delays  # (B, K)
    return (frame >= 0) & (frame < frames[:, None])


def delay(codes: Tensor, delays: Sequence[int], special_token: int) -> Tensor:
    """Lay codes out as the sequence that the language model hears.

    Parameters
    ----------
    codes : Tensor
        (K, frames)
    delays : sequence of int
        K of them.
    special_token : int
        Where there is no code.

    Returns
    -------
    Tensor
        (S + 1, K) tokens.
    """
    frames = codes.shape[1]
    sequence = codes.new_full((frames + max(delays) + 1, len(codes)), special_token)
    for k, lag in enumerate(delays):
        sequence[1 + lag : 1 + lag + frames, k] = codes[k]
    return sequence


def undelay(sequence: Tensor, frames: int, delays: Sequence[int]) -> Tensor:
    """Undo the delays.

    Parameters
    ----------
    sequence : Tensor
        (S + 1, K) tokens, the first step's special tokens included.
    frames : int
    delays : sequence of int
        K of them.

    Returns
    -------
    Tensor
        (K, frames) codes.
    """
    return torch.stack(
        [sequence[1 + delay : 1 + delay + frames, k] for k, delay in enumerate(delays)]
    )
