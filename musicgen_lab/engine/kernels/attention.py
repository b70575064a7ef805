# ruff: noqa: ANN001, ANN201 (the kernels' arguments are triton's own)
"""Attention of one step on a GPU: one query per row and head over the row's own keys.

Each of KEYS lanes keeps a running softmax ("Online normalizer calculation for softmax", Milakov and
Gimelshein, 2018) over every KEYS-th key of a segment of the paged cache; the lanes of a segment,
and then the segments of a row and head, are combined in a fixed order. Several programs share the
segments of a long context where there are few rows ("Flash-Decoding for long-context inference",
Dao et al., 2023), and the one that ends last combines them. Segments have a fixed length, so a
row's bits depend neither on other rows, nor on the number of programs, nor on which one ends last.
Lengths are read on the device, so one recording of a step works for rows of all lengths
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

KEYS = 16
SEGMENT_LEN = 64  # keys
SHARERS = 8  # programs of one row and head, where there are few
_PROGRAMS = 1024  # enough to fill a GPU
_WARPS = 1


def choose_sharers(rows: int, heads: int) -> int:
    """Return how many programs share a row and head, so that few rows also fill a GPU."""
    return SHARERS if rows * heads * SHARERS <= _PROGRAMS else 1


class Attention:
    """Attention with the buffers for combining segments.

    Parameters
    ----------
    rows, heads, head_dim : int
        The most rows of which several programs may share one, and the shape of each row.
    steps : int
        The longest context.
    device : torch.device
    dependent : bool
        Whether a call may start before the kernel before it ends, which must not write any keys.
    """

    def __init__(
        self,
        rows: int,
        heads: int,
        head_dim: int,
        steps: int,
        device: torch.device,
        *,
        dependent: bool = True,
    ) -> None:
        self._heads, self._head_dim = heads, head_dim
        self._segments = triton.next_power_of_2(triton.cdiv(steps, SEGMENT_LEN))
        # The number of finished programs, which the last one resets to 0.
        self._finished = torch.zeros(rows, heads, dtype=torch.int32, device=device)
        self._dependent = dependent and has_dependent_launch(device)

    def __call__(
        self, qkv: Tensor, cache: Tensor, spans: AttentionSpans, sharers: int | None = None
    ) -> Tensor:
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
        sharers : int or None
            The programs of a row and head, a power of two; None for the automatic choice.

        Returns
        -------
        Tensor
            (B, H * D), in the precision of the cache; zeros for a context of length 0.
        """
        splits, rows, columns = qkv.shape
        width, size = self._heads * self._head_dim, triton.next_power_of_2(self._head_dim)
        if rows > len(self._finished):
            sharers = 1
        sharers = sharers or choose_sharers(rows, self._heads)
        out = torch.empty(rows, width, device=qkv.device, dtype=cache.dtype)
        parts = (rows, self._heads, self._segments, size + 2)
        attend_rows[self._heads, rows, sharers](
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
            SEGMENT_LEN=SEGMENT_LEN,
            SEGMENTS=self._segments,
            BLOCK_LEN=cache.shape[3],
            SHARERS=sharers,
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


@triton.jit  # type: ignore[misc, untyped-decorator]
def load_cached(  # type: ignore[no-untyped-def]
    keys,
    values,
    table,
    step,
    end,
    block_stride,
    of_head,
    head_dim,
    BLOCK_LEN: tl.constexpr,
):
    """Load a head's cached keys and values of some steps: (KEYS, SIZE) each, 0 from `end` on."""
    block = tl.load(table + step // BLOCK_LEN, mask=step < end, other=0).to(tl.int64)
    column = tl.arange(0, of_head.shape[0])
    at = (block * block_stride + step % BLOCK_LEN * head_dim)[:, None] + of_head[None, :]
    cached = (step < end)[:, None] & (column < head_dim)[None, :]
    return tl.load(keys + at, mask=cached, other=0.0), tl.load(values + at, mask=cached, other=0.0)


@triton.jit  # type: ignore[misc, untyped-decorator]
def next_step(  # type: ignore[no-untyped-def]
    step, KEYS: tl.constexpr, SEGMENT_LEN: tl.constexpr, SHARERS: tl.constexpr
):
    """Return the steps after some steps, in the same segment or in the program's next one."""
    step += KEYS
    if SHARERS > 1:
        step += tl.where(step % SEGMENT_LEN < KEYS, (SHARERS - 1) * SEGMENT_LEN, 0)
    return step


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
    SEGMENT_LEN: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    SHARERS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attend to every SHARERS-th segment of a row and head; SIZE is a head's next power of two.

    The softmax uses base 2: `scale` includes the factor log2(e).
    """
    let_next_start(DEPENDENT)
    # Neighbouring programs read neighbouring memory.
    head, row, sharer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    heads, rows = tl.num_programs(0), tl.num_programs(1)
    split_stride = rows * KINDS * heads * head_dim
    lane, column = tl.arange(0, KEYS), tl.arange(0, SIZE)
    real = column < head_dim
    table = block_tables + row * table_stride
    of_head = head * head_stride + column
    result = out + (row * heads + head) * head_dim + column
    length = tl.load(context_lens + row).to(tl.int32)
    stored = length - 1 if KINDS == 3 else length  # the last key comes with the query
    count = tl.maximum(tl.cdiv(stored, SEGMENT_LEN), 1)
    if (length == 0) | (sharer >= count):
        wait_for_previous(DEPENDENT)
        tl.store(result, tl.zeros_like(column).to(out.dtype.element_ty), real & (length == 0))
        return

    # The keys of earlier steps are there before the kernel before this one ends. A program loads
    # one block of KEYS steps ahead, or two where too few programs run to hide the time it takes.
    cached = block_stride, of_head, head_dim, BLOCK_LEN
    step = sharer * SEGMENT_LEN + lane
    next_keys, next_values = load_cached(keys, values, table, step, stored, *cached)
    loaded = step
    if SHARERS > 1:
        loaded = next_step(step, KEYS, SEGMENT_LEN, SHARERS)
        later_keys, later_values = load_cached(keys, values, table, loaded, stored, *cached)
    wait_for_previous(DEPENDENT)
    mine = qkv + (row * KINDS * heads + head) * head_dim + column
    query = load_sum(mine, split_stride, real, SPLITS) * scale

    none = -1e30  # finite, so that empty lanes give no NaN
    lane_best = tl.full((KEYS,), none, tl.float32)
    lane_total = tl.zeros((KEYS,), tl.float32)
    lane_value = tl.zeros((KEYS, SIZE), tl.float32)
    if KINDS == 3:  # the first lane of the first segment begins with the new key
        width = heads * head_dim
        new = real & (sharer == 0)
        key = load_sum(mine + width, split_stride, new, SPLITS).to(keys.dtype.element_ty)
        value = load_sum(mine + 2 * width, split_stride, new, SPLITS).to(values.dtype.element_ty)
        last_block = tl.load(table + stored // BLOCK_LEN).to(tl.int64)
        last = last_block * block_stride + head * head_stride + stored % BLOCK_LEN * head_dim
        tl.store(keys + last + column, key, mask=new)
        tl.store(values + last + column, value, mask=new)
        begins = (lane == 0) & (sharer == 0)
        score = tl.sum(key.to(tl.float32) * query, 0)
        lane_best = tl.where(begins, score, lane_best)
        lane_total = tl.where(begins, 1.0, lane_total)
        lane_value = tl.where(begins[:, None], value.to(tl.float32)[None, :], lane_value)
    pair = row * heads + head
    parts = scratch + pair * SEGMENTS * (SIZE + 2)
    best, total = none, 0.0
    attended = tl.zeros((SIZE,), tl.float32)
    segment = sharer
    while segment < count:
        position, end = segment * SEGMENT_LEN, tl.minimum((segment + 1) * SEGMENT_LEN, stored)
        while position < end:
            some_keys, some_values = next_keys.to(tl.float32), next_values.to(tl.float32)
            within = position + lane < end
            position += KEYS
            loaded = next_step(loaded, KEYS, SEGMENT_LEN, SHARERS)
            new_keys, new_values = load_cached(keys, values, table, loaded, stored, *cached)
            if SHARERS > 1:
                next_keys, next_values = later_keys, later_values
                later_keys, later_values = new_keys, new_values
            else:
                next_keys, next_values = new_keys, new_values
            scores = tl.where(within, tl.sum(some_keys * query[None, :], 1), float("-inf"))
            better = tl.maximum(lane_best, scores)
            shrink, weights = tl.exp2(lane_best - better), tl.exp2(scores - better)
            lane_total = tl.fma(lane_total, shrink, weights)
            shrinks = tl.broadcast_to(shrink[:, None], (KEYS, SIZE))
            lane_value = tl.fma(lane_value, shrinks, weights[:, None] * some_values)
            lane_best = better
        best = tl.max(lane_best, 0)
        shrink = tl.exp2(lane_best - best)
        total = tl.sum(lane_total * shrink, 0)
        attended = tl.sum(lane_value * shrink[:, None], 0)
        if count > 1:
            part = parts + segment * (SIZE + 2)
            tl.store(part + column, attended)
            tl.store(part + SIZE, best)
            tl.store(part + SIZE + 1, total)
        lane_best = tl.full((KEYS,), none, tl.float32)
        lane_total = tl.zeros((KEYS,), tl.float32)
        lane_value = tl.zeros((KEYS, SIZE), tl.float32)
        segment += SHARERS

    if count == 1:
        tl.store(result, (attended / total).to(out.dtype.element_ty), mask=real)
    else:
        tl.debug_barrier()  # all threads have stored their parts
        finished_before = SHARERS - 1
        if SHARERS > 1:
            finished_before = tl.atomic_add(finished + pair, 1, sem="acq_rel")
        if finished_before == tl.minimum(count, SHARERS) - 1:
            each = tl.arange(0, SEGMENTS)
            used = each < count
            part = parts + each * (SIZE + 2)
            bests = tl.load(part + SIZE, mask=used, other=none, cache_modifier=".cg")
            totals = tl.load(part + SIZE + 1, mask=used, other=0.0, cache_modifier=".cg")
            some = part[:, None] + column[None, :]
            partial = tl.load(some, mask=used[:, None], other=0.0, cache_modifier=".cg")
            shares = tl.exp2(bests - tl.max(bests, 0))
            combined = tl.sum(partial * shares[:, None], 0) / tl.sum(totals * shares, 0)
            tl.store(result, combined.to(out.dtype.element_ty), mask=real)
            if SHARERS > 1:
                tl.store(finished + pair, 0)
