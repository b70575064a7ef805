# ruff: noqa: ANN001, ANN201 (the kernel's arguments are triton's own)
"""Guidance, filtering and sampling of a step's tokens in one kernel, equal to `engine.sampler`.

Each clip and codebook is one program. Nothing is sorted: the k-th largest probability, and the
smallest one that `top_p` keeps, are found by a binary search over bits, since non-negative floats
are ordered like the integers with the same bits. All parameters are read from tensors, so that one
recording of a step works for clips of all parameters.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from musicgen_lab.engine.batch import Batch
from musicgen_lab.engine.delay import UNKNOWN
from musicgen_lab.engine.token_tables import TokenTables

HIGHEST_BIT = 29  # of a probability: 1.0 is 0x3f800000
WARPS = 4


def draw_tokens_on_cuda(logits: Tensor, batch: Batch, tables: TokenTables) -> Tensor:
    """Sample like `token_tables.draw_tokens`, whose parameters and result these are."""
    logits = logits.contiguous()
    clips, (_, codebooks, card) = len(batch.slot_ids), logits.shape
    drawn = torch.empty(clips, codebooks, dtype=torch.long, device=logits.device)
    parameters, mixing = batch.parameters, batch.mixing
    # Triton starts kernels on the current device.
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        draw_clip[clips, codebooks](
            logits,
            batch.row_with,
            batch.row_without,
            mixing.row_with if mixing else None,
            mixing.share if mixing else None,
            batch.spans.context_lens,
            batch.slot_ids,
            parameters.temperature,
            parameters.top_k,
            parameters.top_p,
            parameters.cfg_coef,
            tables.tokens,
            tables.uniforms,
            tables.finite,
            drawn,
            card,
            tables.tokens.stride(0),
            CARD=triton.next_power_of_2(card),
            HIGHEST=HIGHEST_BIT,
            UNKNOWN=UNKNOWN,
            num_warps=WARPS,
        )
    return drawn


@triton.jit  # type: ignore[misc, untyped-decorator]
def draw_clip(  # type: ignore[no-untyped-def]
    logits,
    row_with,
    row_without,
    rows_mixed,
    shares,
    context_lens,
    slot_ids,
    temperatures,
    top_ks,
    top_ps,
    cfg_coefs,
    tokens,
    uniforms,
    finite,
    drawn,
    card,
    slot_stride,
    CARD: tl.constexpr,
    HIGHEST: tl.constexpr,
    UNKNOWN: tl.constexpr,
):
    """Sample one codebook's token of one clip; CARD is the next power of two of its codes.

    `rows_mixed` and `shares` are None in a batch in which no clip mixes two prompts.
    """
    clip, codebook, codebooks = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    slot = tl.load(slot_ids + clip)
    with_prompt = tl.load(row_with + clip)
    position = tl.load(context_lens + with_prompt) - 1
    code = tl.arange(0, CARD)
    real = code < card

    # Guidance.
    without_at = (tl.load(row_without + clip) * codebooks + codebook) * card + code
    without = tl.load(logits + without_at, mask=real, other=0.0)
    given = tl.load(logits + (with_prompt * codebooks + codebook) * card + code, real, other=0.0)
    if shares is not None:
        share = tl.load(shares + clip)
        mixed_at = (tl.load(rows_mixed + clip) * codebooks + codebook) * card + code
        given = (1.0 - share) * given + share * tl.load(logits + mixed_at, mask=real, other=0.0)
    guided = without + (given - without) * tl.load(cfg_coefs + clip)
    total = tl.sum(guided, 0)
    if not (tl.abs(total) < float("inf")):
        tl.store(finite + slot, False)
    guided = tl.where(real, guided, float("-inf"))

    temperature = tl.load(temperatures + clip)
    if temperature == 0.0:
        token = tl.argmax(guided, 0)
    else:
        # Probabilities, in float32 as in the reference, and their bits.
        scaled = tl.div_rn(guided, tl.zeros_like(guided) + temperature)
        weights = tl.exp(scaled - tl.max(scaled, 0))
        weights = tl.where(real, weights, 0.0)
        probabilities = tl.div_rn(weights, tl.zeros_like(weights) + tl.sum(weights, 0))
        exact = probabilities.to(tl.float64)
        bits = probabilities.to(tl.int32, bitcast=True)

        top_k, top_p = tl.load(top_ks + clip), tl.load(top_ps + clip).to(tl.float64)
        threshold = 0
        if top_p > 0.0:
            # The largest bits below which no more is kept: what lies above reaches top_p.
            for step in range(HIGHEST + 1):
                higher = threshold | (1 << (HIGHEST - step))
                at_least = tl.sum(tl.where(bits >= higher, exact, 0.0), 0)
                threshold = tl.where(at_least > top_p, higher, threshold)
            above = tl.sum(tl.where(bits > threshold, exact, 0.0), 0)
            tied = bits == threshold
            before = (tl.cumsum(tied.to(tl.int32), 0) - 1).to(tl.float64) * exact
            exact = tl.where((bits > threshold) | (tied & (above + before <= top_p)), exact, 0.0)
        elif top_k > 0:
            # The k-th largest bits: the largest that k tokens reach.
            for step in range(HIGHEST + 1):
                higher = threshold | (1 << (HIGHEST - step))
                count = tl.sum((bits >= higher).to(tl.int32), 0)
                threshold = tl.where(count >= top_k, higher, threshold)
            exact = tl.where(bits >= threshold, exact, 0.0)

        # The first token whose cumulative probability is over the uniform number.
        cumulative = tl.cumsum(exact, 0)
        uniform = tl.load(uniforms + slot * slot_stride + position * codebooks + codebook)
        limit = uniform * tl.sum(exact, 0)
        token = tl.sum((cumulative <= limit).to(tl.int32), 0)

    token = tl.minimum(token, card - 1)  # also where a number is not finite
    target = tokens + slot * slot_stride + (position + 1) * codebooks + codebook
    known = tl.load(target)
    token = tl.where(known == UNKNOWN, token.to(tl.int64), known)
    tl.store(target, token)
    tl.store(drawn + clip * codebooks + codebook, token)
