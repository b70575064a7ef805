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

from musicgen_lab.engine.rows import Reach

KEYS_AT_ONCE = 64


def attend_on_cuda(query: Tensor, keys: Tensor, values: Tensor, reach: Reach) -> Tensor:
    """Return the same as `engine.attention.attend`; zeros for a row of length 0.

    Parameters
    ----------
    query : Tensor
        (B, H, D)
    keys, values : Tensor
        (R, H, S, D), contiguous.
    reach : Reach
        Of B rows.

    Returns
    -------
    Tensor
        (B, H, D), in the precision of the keys.
    """
    query = query.contiguous()
    attended = torch.empty_like(query, dtype=keys.dtype)
    rows, heads, size = query.shape
    # Triton starts kernels on the current device.
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        attend_rows[rows, heads](
            query,
            keys,
            values,
            reach.places,
            reach.lengths,
            attended,
            1 / math.sqrt(size),
            size,
            keys.stride(0),
            keys.stride(1),
            SIZE=triton.next_power_of_2(size),
            KEYS=KEYS_AT_ONCE,
        )
    return attended


@triton.jit  # type: ignore[misc, untyped-decorator]
def attend_rows(  # type: ignore[no-untyped-def]
    query,
    keys,
    values,
    places,
    lengths,
    attended,
    scale,
    size,
    place_stride,
    head_stride,
    SIZE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attend for one row and head; SIZE is the next power of two of a head's size."""
    row, head = tl.program_id(0), tl.program_id(1)
    place = tl.load(places + row).to(tl.int64)
    length = tl.load(lengths + row)
    column = tl.arange(0, SIZE)
    mine = (row * tl.num_programs(1) + head) * size + column
    asked = tl.load(query + mine, mask=column < size, other=0.0).to(tl.float32) * scale
    start = place * place_stride + head * head_stride

    best = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    found = tl.zeros((SIZE,), tl.float32)
    first = 0
    while first < length:
        key = first + tl.arange(0, KEYS)
        within = key < length
        at = start + key[:, None] * size + column[None, :]
        real = within[:, None] & (column < size)[None, :]
        known = tl.load(keys + at, mask=real, other=0.0).to(tl.float32)
        fit = tl.where(within, tl.sum(known * asked[None, :], 1), float("-inf"))
        better = tl.maximum(best, tl.max(fit, 0))
        shrink, weights = tl.exp(best - better), tl.exp(fit - better)
        told = tl.load(values + at, mask=real, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(weights, 0)
        found = found * shrink + tl.sum(weights[:, None] * told, 0)
        best = better
        first += KEYS
    found = tl.where(length > 0, found / total, 0.0)
    tl.store(attended + mine, found.to(attended.dtype.element_ty), mask=column < size)
