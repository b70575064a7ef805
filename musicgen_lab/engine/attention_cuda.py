# ruff: noqa: ANN001, ANN201 (the kernel's arguments are triton's own)
"""Attention of one step on a CUDA device, as `engine.attention` computes it on the CPU.

Each row and head is one program of the kernel, which reads exactly the row's own keys, in blocks
from the first to the last, with the running softmax of "Online normalizer calculation for softmax"
(Milakov and Gimelshein, 2018). So a row's result cannot depend on the others, and as the lengths
are read on the device, one recording of a step serves rows of any lengths (`engine.graph`).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from musicgen_lab.engine.rows import AttentionSpans

KEYS_AT_ONCE = 64


def attend_on_cuda(asked: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
    """Return the same as `engine.attention.attend`; zeros for a row of length 0.

    Parameters
    ----------
    asked : Tensor
        (B, 1, H, D) queries, or (B, 3, H, D) queries, keys and values.
    cache : Tensor
        (2, blocks, H, block_len, D), contiguous.
    spans : AttentionSpans
        Of B rows.

    Returns
    -------
    Tensor
        (B, H, D), in the precision of the cache.
    """
    asked = asked.contiguous()
    rows, kinds, heads, size = asked.shape
    attended = torch.empty_like(asked[:, 0], dtype=cache.dtype)
    # Triton starts kernels on the current device.
    with torch.cuda.device_of(asked):  # type: ignore[no-untyped-call]
        attend_rows[rows, heads](
            asked,
            cache[0],
            cache[1],
            spans.block_tables,
            spans.context_lens,
            attended,
            1 / math.sqrt(size),
            size,
            cache.stride(1),
            cache.stride(2),
            spans.block_tables.stride(0),
            cache.shape[3],
            KINDS=kinds,
            SIZE=triton.next_power_of_2(size),
            KEYS=KEYS_AT_ONCE,
        )
    return attended


@triton.jit  # type: ignore[misc, untyped-decorator]
def attend_rows(  # type: ignore[no-untyped-def]
    asked,
    keys,
    values,
    block_tables,
    context_lens,
    attended,
    scale,
    size,
    block_stride,
    head_stride,
    table_stride,
    block_len,
    KINDS: tl.constexpr,
    SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attend for one row and head; SIZE is the next power of two of a head's size."""
    row, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    blocks = block_tables + row * table_stride
    length = tl.load(context_lens + row)
    column = tl.arange(0, SIZE)
    mine = asked + (row * KINDS * heads + head) * size + column
    query = tl.load(mine, mask=column < size, other=0.0).to(tl.float32) * scale
    if KINDS == 3:
        newest = tl.load(blocks + (length - 1) // block_len).to(tl.int64)
        last = newest * block_stride + head * head_stride + (length - 1) % block_len * size + column
        key = tl.load(mine + heads * size, mask=column < size, other=0.0)
        value = tl.load(mine + 2 * heads * size, mask=column < size, other=0.0)
        tl.store(keys + last, key, mask=column < size)
        tl.store(values + last, value, mask=column < size)
        tl.debug_barrier()  # all threads of this program read them below

    best = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    found = tl.zeros((SIZE,), tl.float32)
    first = 0
    while first < length:
        step = first + tl.arange(0, KEYS)
        within = step < length
        block = tl.load(blocks + step // block_len, mask=within, other=0).to(tl.int64)
        start = block * block_stride + head * head_stride + step % block_len * size
        at = start[:, None] + column[None, :]
        real = within[:, None] & (column < size)[None, :]
        known = tl.load(keys + at, mask=real, other=0.0).to(tl.float32)
        fit = tl.where(within, tl.sum(known * query[None, :], 1), float("-inf"))
        better = tl.maximum(best, tl.max(fit, 0))
        shrink, weights = tl.exp(best - better), tl.exp(fit - better)
        told = tl.load(values + at, mask=real, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(weights, 0)
        found = found * shrink + tl.sum(weights[:, None] * told, 0)
        best = better
        first += KEYS
    found = tl.where(length > 0, found / total, 0.0)
    result = attended + (row * heads + head) * size + column
    tl.store(result, found.to(attended.dtype.element_ty), mask=column < size)
