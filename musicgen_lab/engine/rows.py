"""`StepRows`: the rows of one step, and the cached keys and values that each of them attends to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AttentionSpans:
    """Which cached keys and values each row attends over.

    A layer's cache is (2, blocks, H, block_len, D): step `s` of a row lies in block
    `block_tables[row, s // block_len]`, at `s % block_len`.

    Attributes
    ----------
    block_tables : Tensor
        (B, T) of int64, the blocks of each row in the order of its steps. Only as many entries as
        the row's context needs are read.
    context_lens : Tensor
        (B,) of int64, the keys that each row attends over.
    """

    block_tables: Tensor
    context_lens: Tensor


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: those with a prompt first, then those without.

    Attributes
    ----------
    tokens : Tensor
        (B, K)
    spans : AttentionSpans
        Of every row over its own steps, this one included.
    prompt_spans : AttentionSpans
        Over the prompt, of the rows that have one.
    """

    tokens: Tensor
    spans: AttentionSpans
    prompt_spans: AttentionSpans
