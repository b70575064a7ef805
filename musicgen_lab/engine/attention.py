"""Attention of one step, in which a row's result never depends on the other rows.

On the CPU, torch's attention and its matrix products choose their kernels by the number of rows,
by strides, and by where a buffer starts in memory, and each choice changes the last bits of a row.
They also take twice as long as it takes to read the keys and values, on which a large batch spends
most of its time. The kernel here reads them once, each row and head by itself, in one order of
additions whatever stands beside it, and rows of all lengths go into one call. `attention_cuda` has
the same for NVIDIA's GPUs. Elsewhere it is torch's attention with a mask.
"""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.rows import Reach
from musicgen_lab.errors import MusicGenLabWarning

_REORDERED = {"reassoc", "contract"}  # sums may be vectorised; not finite stays not finite
_one_at_a_time = threading.Lock()  # not all of numba's threading layers take calls from two threads


def attend(asked: Tensor, cache: Tensor, reach: Reach) -> Tensor:
    """Return the values that fit each row's one query, weighed by how well their keys fit it.

    Parameters
    ----------
    asked : Tensor
        (B, 1, H, D) queries, or (B, 3, H, D) queries, keys and values: these are written to the
        cache first, as the last that their row attends to.
    cache : Tensor
        (2, R, H, S, D) keys and values; contiguous, and float32 on the CPU.
    reach : Reach
        Which of R each of the B rows attends to, and over how many of S.

    Returns
    -------
    Tensor
        (B, H, D), in the precision of the cache.
    """
    asked = asked.to(cache.dtype)
    whose = attention_by(cache.device)
    if whose == "triton":
        from musicgen_lab.engine.attention_cuda import attend_on_cuda

        return attend_on_cuda(asked, cache, reach)
    if whose == "torch":
        return attend_masked(asked, cache, reach)
    asked = asked.contiguous()  # other strides would be another kernel, with other last bits
    attended = torch.empty_like(asked[:, 0])
    tensors = (asked, cache, reach.places, reach.lengths, attended)
    with _one_at_a_time:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        _attend_rows(*[tensor.numpy() for tensor in tensors])
    return attended


@functools.cache
def kernel_works(device: torch.device) -> bool:
    """Say whether `engine.attention_cuda` can be had on a device, after a trial.

    It needs triton, which comes with torch on Linux, and triton a C compiler.
    """
    if device.type != "cuda":
        return False
    try:
        from musicgen_lab.engine.attention_cuda import attend_on_cuda

        one = torch.ones(1, dtype=torch.long, device=device)
        cache = torch.ones(2, 2, 1, 1, 64, device=device)
        attend_on_cuda(cache[0, :1], cache, Reach(one, one))
    except torch.OutOfMemoryError:  # says nothing about the kernel
        raise
    except Exception as error:  # whatever compilers and drivers say
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"triton cannot make kernels here ({reason}); clips will take longer, and may differ "
            "in their last bits beside others. A C compiler such as gcc is what it mostly lacks",
            MusicGenLabWarning,
            stacklevel=2,
        )
        return False
    return True


def attention_by(device: torch.device) -> str:
    """Return whose kernel `attend` uses on a device: their last bits differ."""
    if kernel_works(device):
        return "triton"
    return "numba" if device.type == "cpu" else "torch"


def attend_masked(asked: Tensor, cache: Tensor, reach: Reach) -> Tensor:
    """Return the same as `attend`, by torch's attention over as many keys as the longest row has.

    It copies the keys and values, and the last bits of a row may depend on the longest one.
    """
    if asked.shape[1] == 3:
        cache[:, reach.places, :, reach.lengths - 1] = asked[:, 1:]
    longest = int(reach.lengths.max())
    within = torch.arange(longest, device=cache.device) < reach.lengths[:, None]  # (B, T)
    beyond = ~within[:, None, :, None]  # (B, 1, T, 1) where anything may lie
    keys, values = (
        kind[reach.places, :, :longest].masked_fill_(beyond, 0)  # (B, H, T, D)
        for kind in cache
    )
    query, mask = asked[:, 0, :, None], within[:, None, None]  # (B, H, 1, D), (B, 1, 1, T)
    return F.scaled_dot_product_attention(query, keys, values, mask).squeeze(2)


def _compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """Let numba compile a kernel, once for all processes where it can keep what it compiled."""
    options = {"parallel": True, "nogil": True, "fastmath": _REORDERED}
    try:
        compiled: Callable[..., None] = numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # neither the source's folder nor the user's cache can be written
        compiled = numba.njit(**options)(kernel)
    return compiled


@_compiled
def _attend_rows(
    asked: np.ndarray,
    cache: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
    attended: np.ndarray,
) -> None:
    rows, kinds, heads, size = asked.shape
    scale = np.float32(1 / math.sqrt(size))
    for item in numba.prange(rows * heads):
        row, head = item // heads, item % heads
        keys, values = cache[0, places[row], head], cache[1, places[row], head]
        query, found = asked[row, 0, head], attended[row, head]
        length = lengths[row]
        if kinds == 3:
            keys[length - 1] = asked[row, 1, head]
            values[length - 1] = asked[row, 2, head]
        weights = np.empty(length, np.float32)
        for key in range(length):
            fit = np.float32(0)
            for i in range(size):
                fit += query[i] * keys[key, i]
            weights[key] = fit * scale
        best = weights.max()
        total = np.float32(0)
        for key in range(length):
            weights[key] = math.exp(weights[key] - best)
            total += weights[key]
        found[:] = 0
        for key in range(length):
            weight = weights[key] / total
            for i in range(size):
                found[i] += weight * values[key, i]
