"""The delay pattern: one sequence of several codebooks with a delay each.

At sequence step `s` codebook `k` has the code of frame `s - 1 - delays[k]`, or the special token if
there is no such frame. Step 0 consists of special tokens. With frames 0-3 and delays 0, 1, 2 the
sequence is::

    S 0 1 2 3 S S
    S S 0 1 2 3 S
    S S S 0 1 2 3
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UNKNOWN = -1  # in place of a code that is to be sampled


def delay(codes: Tensor, delays: Sequence[int], special_token: int) -> Tensor:
    """Arrange codes as the sequence for the language model.

    Parameters
    ----------
    codes : Tensor
        (K, frames)
    delays : sequence of int
        K of them.
    special_token : int
        Used where there is no code.

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
