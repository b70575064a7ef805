"""`StepRows`: the rows of one step, and which of them attend together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Rows of a step that attend together: neighbours of the same length.

    Attributes
    ----------
    first, last : int
        Rows of the batch, `last` excluded.
    cache_row : int
        Row of the cache that belongs to `first`; the others follow.
    length : int
        Keys to attend over, this step's included.
    """

    first: int
    last: int
    cache_row: int
    length: int


@dataclass(frozen=True)
class PromptRun:
    """Rows of a step that attend to a prompt together: neighbours that share it.

    Attributes
    ----------
    first, last : int
        Rows of the batch, `last` excluded.
    keys_values : Tensor
        (L, 2, H, T, D), from `Transformer.encode_prompt`.
    """

    first: int
    last: int
    keys_values: Tensor


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: those with a prompt first, then those without.

    Attributes
    ----------
    tokens : Tensor
        (B, K)
    positions : Tensor
        (B,) steps that each row has made.
    cache_rows : Tensor
        (B,) row of the cache that belongs to each.
    runs : sequence of Run
        Cover all rows.
    prompts : sequence of PromptRun
        Cover the rows that have a prompt.
    """

    tokens: Tensor
    positions: Tensor
    cache_rows: Tensor
    runs: Sequence[Run]
    prompts: Sequence[PromptRun]


def find_runs(cache_rows: Sequence[int], lengths: Sequence[int], *, together: bool) -> list[Run]:
    """Cut rows into the longest runs of neighbours in the cache that have the same length.

    Parameters
    ----------
    cache_rows, lengths : sequence of int
        One per row of the batch.
    together : bool
        False for one run per row.

    Returns
    -------
    list of Run
    """
    runs: list[Run] = []
    for row, (cache_row, length) in enumerate(zip(cache_rows, lengths, strict=True)):
        previous = runs[-1] if runs and together else None
        if (
            previous is not None
            and previous.length == length
            and previous.cache_row + (previous.last - previous.first) == cache_row
        ):
            runs[-1] = replace(previous, last=row + 1)
        else:
            runs.append(Run(row, row + 1, cache_row, length))
    return runs


def find_prompt_runs(keys_values: Sequence[Tensor], *, together: bool) -> list[PromptRun]:
    """Join neighbouring rows of the same prompt.

    Parameters
    ----------
    keys_values : sequence of Tensor
        One per row that has a prompt.
    together : bool
        False for one run per row.

    Returns
    -------
    list of PromptRun
    """
    prompts: list[PromptRun] = []
    for row, tensor in enumerate(keys_values):
        if prompts and together and prompts[-1].keys_values is tensor:
            prompts[-1] = replace(prompts[-1], last=row + 1)
        else:
            prompts.append(PromptRun(row, row + 1, tensor))
    return prompts
