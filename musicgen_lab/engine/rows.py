"""`StepRows`: the rows of one step, and what each of them attends to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Neighbouring rows that attend over equally many keys.

    Attributes
    ----------
    first, last : int
        Rows of the batch, `last` excluded.
    places : slice
        Where their keys are, one place each or one for all.
    length : int
        Keys to attend over.
    """

    first: int
    last: int
    places: slice
    length: int


@dataclass(frozen=True)
class Reach:
    """Which keys each row attends over.

    Attributes
    ----------
    places, lengths : Tensor
        (B,) where each row's keys are, and how many.
    runs : sequence of Run
        The same, cut into runs that cover all rows.
    grown : int
        Keys that every row has got since the runs were cut.
    """

    places: Tensor
    lengths: Tensor
    runs: Sequence[Run]
    grown: int = 0


@dataclass(frozen=True)
class PromptRun:
    """Neighbouring rows of a step that share a prompt.

    Attributes
    ----------
    first, last : int
        Rows of the batch, `last` excluded.
    keys_values : Tensor
        (L, 2, 1, H, T, D), from `Transformer.encode_prompt`.
    reach : Reach
        Every row attends over all of T.
    """

    first: int
    last: int
    keys_values: Tensor
    reach: Reach


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: those with a prompt first, then those without.

    Attributes
    ----------
    tokens : Tensor
        (B, K)
    positions : Tensor
        (B,) steps that each row has made.
    reach : Reach
        Each row's place in the cache, and its steps so far, this one included.
    prompts : sequence of PromptRun
        Cover the rows that have a prompt.
    """

    tokens: Tensor
    positions: Tensor
    reach: Reach
    prompts: Sequence[PromptRun]


def find_runs(places: Sequence[int], lengths: Sequence[int]) -> list[Run]:
    """Cut rows into the longest runs of neighbours in the cache that have the same length.

    Parameters
    ----------
    places, lengths : sequence of int
        One per row of the batch.

    Returns
    -------
    list of Run
    """
    runs: list[Run] = []
    for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
        previous = runs[-1] if runs else None
        if previous is not None and (previous.length, previous.places.stop) == (length, place):
            places_so_far = slice(previous.places.start, place + 1)
            runs[-1] = replace(previous, last=row + 1, places=places_so_far)
        else:
            runs.append(Run(row, row + 1, slice(place, place + 1), length))
    return runs


def find_prompt_runs(keys_values: Sequence[Tensor]) -> list[PromptRun]:
    """Join neighbouring rows of the same prompt.

    Parameters
    ----------
    keys_values : sequence of Tensor
        One per row that has a prompt.

    Returns
    -------
    list of PromptRun
    """
    prompts: list[PromptRun] = []
    row = 0
    for _, same in itertools.groupby(keys_values, key=id):
        shared = list(same)
        prompts.append(_share_prompt(row, row + len(shared), shared[0]))
        row += len(shared)
    return prompts


def _share_prompt(first: int, last: int, keys_values: Tensor) -> PromptRun:
    count, length, device = last - first, keys_values.shape[4], keys_values.device
    places = torch.zeros(count, dtype=torch.long, device=device)
    reach = Reach(places, torch.full_like(places, length), [Run(0, count, slice(0, 1), length)])
    return PromptRun(first, last, keys_values, reach)
