"""`StepRows`: the rows of one step, and what each of them attends to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reach:
    """Which keys each row attends over.

    Attributes
    ----------
    places, lengths : Tensor
        (B,) where each row's keys are, and how many.
    """

    places: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: those with a prompt first, then those without.

    Attributes
    ----------
    tokens : Tensor
        (B, K)
    reach : Reach
        Each row's place in the cache, and its steps so far, this one included.
    prompts : Reach
        Of the rows that have a prompt: its place in the prompt cache, and its tokens.
    """

    tokens: Tensor
    reach: Reach
    prompts: Reach
