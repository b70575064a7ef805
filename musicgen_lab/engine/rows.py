"""`StepRows`: the rows of one step, and the cached keys and values that each attends to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AttentionSpans:
    """The cached keys and values that each row attends to.

    A layer's cache is (2, blocks, H, block_len, D): step `s` of a row is in block
    `block_tables[row, s // block_len]`, at offset `s % block_len`.

    Attributes
    ----------
    block_tables : Tensor
        (B, T) of int64, the blocks of each row in the order of its steps. Only as many entries as
        the row's context needs are read.
    context_lens : Tensor
        (B,) of int64, the number of keys that each row attends to.
    """

    block_tables: Tensor
    context_lens: Tensor


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: those with a text first, then those without one.

    Attributes
    ----------
    tokens : Tensor
        (B, K)
    spans : AttentionSpans
        Self-attention of every row to its own steps, including this one.
    prompt_spans : AttentionSpans
        Cross-attention to the text, for the rows that have one.
    """

    tokens: Tensor
    spans: AttentionSpans
    prompt_spans: AttentionSpans
