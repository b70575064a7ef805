"""`TokenTables`: the tokens and random numbers of all slots, which each step reads and extends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch
from musicgen_lab.engine.delay import UNKNOWN
from musicgen_lab.engine.sampler import sample


@dataclass(frozen=True, eq=False)
class TokenTables:
    """The tokens and random numbers of the running clips, by slot.

    Attributes
    ----------
    tokens : Tensor
        (slots, S + 1, K) codes in the delay pattern, the special token where the pattern has no
        code, and `UNKNOWN` where one is to be sampled.
    uniforms : Tensor
        (slots, S + 1, K) of float64 in [0, 1).
    finite : Tensor
        (slots,) of bool: whether all logits since the clip's start were finite.
    """

    tokens: Tensor
    uniforms: Tensor
    finite: Tensor


def draw_tokens(logits: Tensor, batch: Batch, tables: TokenTables) -> Tensor:
    """Sample the next tokens of every clip and write them to its table.

    Parameters
    ----------
    logits : Tensor
        (B, K, card) of float32, of all rows.
    batch : Batch
        Of n clips.
    tables : TokenTables

    Returns
    -------
    Tensor
        (n, K) tokens.
    """
    slots, positions = batch.slot_ids, batch.positions
    guided = batch.guide(logits)  # (n, K, card)
    tables.finite[slots] &= guided.sum(dim=(1, 2)).isfinite()  # the sum is finite if each logit is
    drawn = sample(guided, batch.parameters, tables.uniforms[slots, positions])
    known = tables.tokens[slots, positions + 1]
    tokens = torch.where(known == UNKNOWN, drawn, known)
    tables.tokens[slots, positions + 1] = tokens
    return tokens
