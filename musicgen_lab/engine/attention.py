"""Attention of one decoding step, in which a row's result never depends on the other rows.

On the CPU, torch's attention and matrix products choose their kernels by the number of rows, by
strides, and by the alignment of buffers, and each choice changes the last bits of a row. They also
take twice the time of reading the keys and values, which dominates a step of a large batch. The
kernel here reads them once, separately for each row and head, in a fixed order of additions, and
takes rows of all lengths in one call. On other devices it is torch's attention with a mask;
`kernels.attention` has the corresponding kernel for NVIDIA GPUs.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba.extending import register_jitable
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.machine_lock import machine_lock

Attend = Callable[[Tensor, Tensor, AttentionSpans], Tensor]  # as `attend`
_Function = TypeVar("_Function", bound=Callable[..., Any])

_REORDERED = {"reassoc", "contract"}  # sums may be vectorised; not finite stays not finite
_ZERO, _HALF = np.float32(0), np.float32(0.5)
_LEAST = np.float32(-126)  # as small a power of 2 as float32 has, next to nothing beside a sum of 1
_one_at_a_time = threading.Lock()  # not all of numba's threading layers take calls from two threads


def attend(qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
    """Return scaled dot-product attention of one query per row over the row's own keys.

    Parameters
    ----------
    qkv : Tensor
        (B, 1, H, D) queries, or (B, 3, H, D) queries, keys and values; the latter are written to
        the cache first, as the last ones that the row attends to.
    cache : Tensor
        (2, blocks, H, block_len, D) keys and values; contiguous, and float32 on the CPU.
    spans : AttentionSpans
        Of B rows.

    Returns
    -------
    Tensor
        (B, H, D), in the precision of the cache.
    """
    qkv = qkv.to(cache.dtype)
    if cache.device.type != "cpu":
        return attend_masked(qkv, cache, spans)
    qkv = qkv.contiguous()  # other strides would be another kernel, with other last bits
    attended = torch.empty_like(qkv[:, 0])
    tensors = (qkv, cache, spans.block_tables, spans.context_lens, attended)
    with _one_at_a_time:
        _start_numba()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        # Processes that compile at the same time can damage numba's cache (numba issue 10128).
        with nullcontext() if _attend_rows.overloads else machine_lock("numba"):
            _attend_rows(*[tensor.numpy() for tensor in tensors])
    return attended


def attend_among(qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
    """Return the same as `attend` for rows that may be steps of the same sequence.

    The keys and values of all rows are written to the cache before any row attends to them.
    """
    store(qkv[:, 1:], cache, spans)
    return attend(qkv[:, :1], cache, spans)


def store(keys_values: Tensor, cache: Tensor, spans: AttentionSpans) -> None:
    """Write (B, 2, H, D) keys and values to the cache, as the last ones of each row's span."""
    block_len, last = cache.shape[3], spans.context_lens - 1
    blocks = spans.block_tables.gather(1, (last // block_len)[:, None])[:, 0]
    cache[:, blocks, :, last % block_len] = keys_values.to(cache.dtype)


@functools.cache
def _start_numba() -> None:
    """Start numba's threads; torch shares their OpenMP runtime, and would lose its own limit."""
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


def attend_masked(qkv: Tensor, cache: Tensor, spans: AttentionSpans) -> Tensor:
    """Return the same as `attend`, by torch's attention over the padded keys of all rows.

    It copies the keys and values, and the last bits of a row may depend on the longest row.
    """
    block_len, lens = cache.shape[3], spans.context_lens
    if qkv.shape[1] == 3:
        store(qkv[:, 1:], cache, spans)
    steps = torch.arange(int(lens.max()), device=cache.device)  # (T,)
    within = steps < lens[:, None]  # (B, T)
    blocks = spans.block_tables[:, steps // block_len].where(within, 0)  # (B, T)
    beyond = ~within[:, None, :, None]  # (B, 1, T, 1) where anything may lie
    keys, values = (
        kind[blocks, :, steps % block_len].transpose(1, 2).masked_fill(beyond, 0)  # (B, H, T, D)
        for kind in cache
    )
    query, mask = qkv[:, 0, :, None], within[:, None, None]  # (B, H, 1, D), (B, 1, 1, T)
    return F.scaled_dot_product_attention(query, keys, values, mask).squeeze(2)


def _compiled(kernel: Callable[..., None]) -> Any:  # numba's Dispatcher; numba has no types
    """Compile a kernel with numba, cached on disk where possible."""
    options = {"parallel": True, "nogil": True, "fastmath": _REORDERED}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # neither the source's folder nor the user's cache can be written
        return numba.njit(**options)(kernel)


def _called_by_kernels(function: _Function) -> _Function:
    """Let kernels call a function, which is compiled with them."""
    jitable: _Function = register_jitable(fastmath=_REORDERED)(function)
    return jitable


@_called_by_kernels
def _score(query: np.ndarray, keys: np.ndarray, scores: np.ndarray) -> None:
    """Write the products of a query with each key, four keys at a time."""
    count, size = keys.shape
    whole = count - count % 4
    for key in range(0, whole, 4):
        first, second, third, fourth = _ZERO, _ZERO, _ZERO, _ZERO
        for i in range(size):
            first += query[i] * keys[key, i]
            second += query[i] * keys[key + 1, i]
            third += query[i] * keys[key + 2, i]
            fourth += query[i] * keys[key + 3, i]
        scores[key] = first
        scores[key + 1] = second
        scores[key + 2] = third
        scores[key + 3] = fourth
    for key in range(whole, count):
        score = _ZERO
        for i in range(size):
            score += query[i] * keys[key, i]
        scores[key] = score


@_called_by_kernels
def _power_of_2(x: np.float32) -> np.float32:
    """Return 2 ** x for x from -0.5 to 0.5, within 3e-7."""
    power = np.float32(1.5403530e-4)
    power = power * x + np.float32(1.3333558e-3)
    power = power * x + np.float32(9.6181291e-3)
    power = power * x + np.float32(5.5504109e-2)
    power = power * x + np.float32(2.4022651e-1)
    power = power * x + np.float32(6.9314718e-1)
    return power * x + np.float32(1)


@_called_by_kernels
def _exponentiate(scores: np.ndarray, scale: np.float32) -> np.float32:
    """Replace scores by powers of 2 of what the scaled ones are less the largest; return their sum.

    A polynomial of the fraction, times a power of 2 made of its bits: a third of the time of the C
    library's function, which takes one number at a time.
    """
    largest = scores[0]
    for key in range(1, len(scores)):
        largest = max(largest, scores[key])
    bits = np.empty(len(scores), np.int32)
    powers, total = bits.view(np.float32), _ZERO
    for key in range(len(scores)):
        score = max((scores[key] - largest) * scale, _LEAST)
        whole = math.floor(score + _HALF)
        bits[key] = (np.int32(whole) + 127) << 23
        scores[key] = _power_of_2(score - np.float32(whole))
    for key in range(len(scores)):
        scores[key] *= powers[key]
        total += scores[key]
    return total


@_called_by_kernels
def _add_weighted(weights: np.ndarray, values: np.ndarray, result: np.ndarray) -> None:
    """Add the values times their weights to a result, four values at a time."""
    count, size = values.shape
    whole = count - count % 4
    for key in range(0, whole, 4):
        for i in range(size):
            result[i] += (
                weights[key] * values[key, i]
                + weights[key + 1] * values[key + 1, i]
                + weights[key + 2] * values[key + 2, i]
                + weights[key + 3] * values[key + 3, i]
            )
    for key in range(whole, count):
        for i in range(size):
            result[i] += weights[key] * values[key, i]


@_compiled
def _attend_rows(
    qkv: np.ndarray,
    cache: np.ndarray,
    block_tables: np.ndarray,
    context_lens: np.ndarray,
    attended: np.ndarray,
) -> None:
    rows, kinds, heads, size = qkv.shape
    block_len = cache.shape[3]
    scale = np.float32(math.log2(math.e) / math.sqrt(size))  # exp(x) is 2 ** (x * log2(e))
    for item in numba.prange(rows * heads):
        row, head = item // heads, item % heads
        query, result = qkv[row, 0, head], attended[row, head]
        length, blocks = context_lens[row], block_tables[row]
        if kinds == 3:
            last, offset = blocks[(length - 1) // block_len], (length - 1) % block_len
            cache[0, last, head, offset] = qkv[row, 1, head]
            cache[1, last, head, offset] = qkv[row, 2, head]
        weights = np.empty(length, np.float32)
        for first in range(0, length, block_len):
            count = min(block_len, length - first)
            keys = cache[0, blocks[first // block_len], head, :count]
            _score(query, keys, weights[first : first + count])
        total = _exponentiate(weights, scale)
        for i in range(size):
            result[i] = 0
        for first in range(0, length, block_len):
            count = min(block_len, length - first)
            values = cache[1, blocks[first // block_len], head, :count]
            _add_weighted(weights[first : first + count], values, result)
        for i in range(size):
            result[i] /= total
