# ruff: noqa: ANN001, ANN201 (the kernels' arguments are triton's own)
"""Attention of one step on a GPU: one query per row and head over the row's own keys.

Each program reads one segment of the keys of one row and head from the paged cache. Each of KEYS
lanes keeps a running softmax ("Online normalizer calculation for softmax", Milakov and Gimelshein,
2018) over every KEYS-th key; the lanes are combined in a fixed order at the end. With several
segments ("Flash-Decoding for long-context inference", Dao et al., 2023) the program that ends last
combines the segments of its row and head in their order, so the result does not depend on which one
ends last. The segments follow from the row's own context length, so a row cannot depend on the
others. Lengths are read on the device, so one recording of a step works for rows of all lengths
(`engine.cuda_graph`).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from musicgen_lab.engine.kernels.dependent_launch import (
    has_dependent_launch,
    let_next_start,
    wait_for_previous,
)
from musicgen_lab.engine.rows import AttentionSpans

KEYS = 32
_PROGRAMS = 256  # enough to fill a GPU
_SEGMENTS_MAX = 8
_WARPS = 4


def choose_segments(rows: int, heads: int) -> int:
    """Return how many segments long contexts are split into, so that few rows also fill a GPU."""
    segments = 1
    while segments < _SEGMENTS_MAX and 2 * segments * rows * heads <= _PROGRAMS:
        segments *= 2
    return segments


class Attention:
    """Attention of up to `rows` rows, with the buffers for combining segments.

    Parameters
    ----------
    rows, heads, head_dim : int
        The most rows of a call, and the shape of each.
    device : torch.device
    segments : int
        Segments of the keys of each row and head: a power of two. With 1 there may be any number
        of rows.
    dependent : bool
        Whether a call may start before the kernel before it ends, which must not write any keys.
    """

    def __init__(
        self,
        rows: int,
        heads: int,
        head_dim: int,
        device: torch.device,
        *,
        segments: int = 1,
        dependent: bool = True,
    ) -> None:
        self._heads, self._head_dim, self._segments = heads, head_dim, segments
        # The number of finished segments, which the last one resets to 0.
        self._finished = torch.zeros(rows, heads, dtype=torch.int32, device=device)
        self._dependent = dependent and has_dependent_launch(device)

    def __call__(self, qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
        """Attend, after writing each row's new key and value as the last that it attends to.

        Parameters
        ----------
        qkv : Tensor
            (splits, B, H * D) queries or (splits, B, 3 * H * D) queries, keys and values, as
            partial products to be summed over the splits.
        cache : Tensor
            (2, blocks, H, block_len, D), contiguous.
        spans : AttentionSpans
            Of the B rows.

        Returns
        -------
        Tensor
            (B, H * D), in the precision of the cache; zeros for a context of length 0.
        """
        splits, rows, columns = qkv.shape
        width, size = self._heads * self._head_dim, triton.next_power_of_2(self._head_dim)
        out = torch.empty(rows, width, device=qkv.device, dtype=cache.dtype)
        parts = (rows, self._heads, self._segments, size + 2) if self._segments > 1 else (0,)
        attend_rows[rows, self._heads, self._segments](
            qkv,
            cache[0],
            cache[1],
            spans.block_tables,
            spans.context_lens,
            out,
            torch.empty(parts, device=qkv.device),
            self._finished,
            math.log2(math.e) / math.sqrt(self._head_dim),
            self._head_dim,
            spans.block_tables.stride(0),
            cache.stride(1),
            cache.stride(2),
            SPLITS=splits,
            KINDS=columns // width,
            SIZE=size,
            KEYS=KEYS,
            BLOCK_LEN=cache.shape[3],
            SEGMENTS=self._segments,
            DEPENDENT=self._dependent,
            num_warps=_WARPS,
            launch_pdl=self._dependent,
        )
        return out


@triton.jit  # type: ignore[misc, untyped-decorator]
def load_sum(pointers, split_stride, real, SPLITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load the sum of SPLITS partial products, in float32."""
    total = tl.load(pointers, mask=real, other=0.0).to(tl.float32)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(pointers + split * split_stride, mask=real, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["table_stride"])  # type: ignore[misc, untyped-decorator]
def attend_rows(  # type: ignore[no-untyped-def]
    qkv,
    keys,
    values,
    block_tables,
    context_lens,
    out,
    scratch,
    finished,
    scale,
    head_dim,
    table_stride,
    block_stride,
    head_stride,
    SPLITS: tl.constexpr,
    KINDS: tl.constexpr,
    SIZE: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    SEGMENTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attend for one row, head and segment; SIZE is the next power of two of a head's size.

    The softmax uses base 2: `scale` includes the factor log2(e).
    """
    let_next_start(DEPENDENT)
    row, head, segment = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, heads = tl.num_programs(0), tl.num_programs(1)
    split_stride = rows * KINDS * heads * head_dim
    lane, column = tl.arange(0, KEYS), tl.arange(0, SIZE)
    real = column < head_dim
    table = block_tables + row * table_stride
    of_head = head * head_stride + column[None, :]
    length = tl.load(context_lens + row).to(tl.int32)
    stored = length - 1 if KINDS == 3 else length  # the last key comes with the query
    position = segment * tl.cdiv(tl.cdiv(stored, KEYS), SEGMENTS) * KEYS
    end = tl.minimum(position + tl.cdiv(tl.cdiv(stored, KEYS), SEGMENTS) * KEYS, stored)

    # The keys of earlier steps are there before the kernel before this one ends.
    step = position + lane
    block = tl.load(table + step // BLOCK_LEN, mask=step < end, other=0).to(tl.int64)
    at = (block * block_stride + step % BLOCK_LEN * head_dim)[:, None] + of_head
    next_keys = tl.load(keys + at, mask=(step < end)[:, None] & real[None, :], other=0.0)
    next_values = tl.load(values + at, mask=(step < end)[:, None] & real[None, :], other=0.0)
    wait_for_previous(DEPENDENT)
    mine = qkv + (row * KINDS * heads + head) * head_dim + column
    query = load_sum(mine, split_stride, real, SPLITS) * scale

    lane_best = tl.full((KEYS,), -1e30, tl.float32)  # finite, so that empty lanes give no NaN
    lane_total = tl.zeros((KEYS,), tl.float32)
    lane_value = tl.zeros((KEYS, SIZE), tl.float32)
    if KINDS == 3:  # the first lane of the first segment begins with the new key
        width = heads * head_dim
        new = real & (segment == 0)
        key = load_sum(mine + width, split_stride, new, SPLITS).to(keys.dtype.element_ty)
        value = load_sum(mine + 2 * width, split_stride, new, SPLITS).to(values.dtype.element_ty)
        last_block = tl.load(table + stored // BLOCK_LEN).to(tl.int64)
        last = last_block * block_stride + head * head_stride + stored % BLOCK_LEN * head_dim
        tl.store(keys + last + column, key, mask=new)
        tl.store(values + last + column, value, mask=new)
        begins = (lane == 0) & (segment == 0)
        score = tl.sum(key.to(tl.float32) * query, 0)
        lane_best = tl.where(begins, score, lane_best)
        lane_total = tl.where(begins, 1.0, lane_total)
        lane_value = tl.where(begins[:, None], value.to(tl.float32)[None, :], lane_value)
    while position < end:
        some_keys, some_values = next_keys.to(tl.float32), next_values.to(tl.float32)
        within = position + lane < end
        position += KEYS
        step = position + lane
        block = tl.load(table + step // BLOCK_LEN, mask=step < end, other=0).to(tl.int64)
        at = (block * block_stride + step % BLOCK_LEN * head_dim)[:, None] + of_head
        next_keys = tl.load(keys + at, mask=(step < end)[:, None] & real[None, :], other=0.0)
        next_values = tl.load(values + at, mask=(step < end)[:, None] & real[None, :], other=0.0)
        scores = tl.where(within, tl.sum(some_keys * query[None, :], 1), float("-inf"))
        better = tl.maximum(lane_best, scores)
        shrink, weights = tl.exp2(lane_best - better), tl.exp2(scores - better)
        lane_total = lane_total * shrink + weights
        lane_value = lane_value * shrink[:, None] + weights[:, None] * some_values
        lane_best = better
    best = tl.max(lane_best, 0)
    shrink = tl.exp2(lane_best - best)
    total = tl.sum(lane_total * shrink, 0)
    attended = tl.sum(lane_value * shrink[:, None], 0)

    result = out + (row * heads + head) * head_dim + column
    if SEGMENTS == 1:
        attended = tl.where(length > 0, attended / total, 0.0)
        tl.store(result, attended.to(out.dtype.element_ty), mask=real)
    else:
        pair = row * heads + head
        parts = scratch + pair * SEGMENTS * (SIZE + 2)
        part = parts + segment * (SIZE + 2)
        tl.store(part + column, attended)
        tl.store(part + SIZE, best)
        tl.store(part + SIZE + 1, total)
        tl.debug_barrier()  # all threads have stored theirs before one counts this program
        if tl.atomic_add(finished + pair, 1, sem="acq_rel") == SEGMENTS - 1:
            each = tl.arange(0, SEGMENTS) * (SIZE + 2)
            bests = tl.load(parts + each + SIZE, cache_modifier=".cg")
            totals = tl.load(parts + each + SIZE + 1, cache_modifier=".cg")
            found = tl.load(parts + each[:, None] + column[None, :], cache_modifier=".cg")
            shares = tl.exp2(bests - tl.max(bests, 0))
            combined = tl.sum(found * shares[:, None], 0) / tl.sum(totals * shares, 0)
            combined = tl.where(length > 0, combined, 0.0)
            tl.store(result, combined.to(out.dtype.element_ty), mask=real)
            tl.store(finished + pair, 0)
