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

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.rows import Reach
from musicgen_lab.errors import MusicGenLabWarning

_REORDERED = {"reassoc", "contract"}  # sums may be vectorised; not finite stays not finite
_one_at_a_time = threading.Lock()  # not all of numba's threading layers take calls from two threads


def attend(query: Tensor, keys: Tensor, values: Tensor, reach: Reach) -> Tensor:
    """Return the values that fit each row's one query, weighed by how well their keys fit it.

    Parameters
    ----------
    query : Tensor
        (B, H, D)
    keys, values : Tensor
        (R, H, S, D); contiguous and float32 on the CPU.
    reach : Reach
        Which of R each of the B rows attends to, and over how many of S.

    Returns
    -------
    Tensor
        (B, H, D), in the precision of the keys.
    """
    query = query.to(keys.dtype)
    if kernel_works(keys.device):
        from musicgen_lab.engine.attention_cuda import attend_on_cuda

        return attend_on_cuda(query, keys, values, reach)
    if keys.device.type != "cpu":
        return attend_masked(query, keys, values, reach)
    query = query.contiguous()  # other strides would be another kernel, with other last bits
    attended = torch.empty_like(query)
    tensors = (query, keys, values, reach.places, reach.lengths, attended)
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
        keys = torch.ones(2, 1, 1, 64, device=device)
        attend_on_cuda(keys[0], keys, keys, Reach(one, one))
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


def attend_masked(query: Tensor, keys: Tensor, values: Tensor, reach: Reach) -> Tensor:
    """Return the same as `attend`, by torch's attention over as many keys as the longest row has.

    It copies the keys and values, and the last bits of a row may depend on the longest one.
    """
    longest = int(reach.lengths.max())
    within = torch.arange(longest, device=keys.device) < reach.lengths[:, None]  # (B, T)
    beyond = ~within[:, None, :, None]  # (B, 1, T, 1) where anything may lie
    known, told = (
        tensor[reach.places, :, :longest].masked_fill_(beyond, 0)  # (B, H, T, D)
        for tensor in (keys, values)
    )
    mask = within[:, None, None]  # (B, 1, 1, T)
    return F.scaled_dot_product_attention(query.unsqueeze(2), known, told, mask).squeeze(2)


@numba.njit(parallel=True, nogil=True, cache=True, fastmath=_REORDERED)  # type: ignore[misc]
def _attend_rows(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
    attended: np.ndarray,
) -> None:
    rows, heads, size = query.shape
    scale = np.float32(1 / math.sqrt(size))
    for item in numba.prange(rows * heads):
        row, head = item // heads, item % heads
        asked, known = query[row, head], keys[places[row], head]
        told, found = values[places[row], head], attended[row, head]
        length = lengths[row]
        weights = np.empty(length, np.float32)
        for key in range(length):
            fit = np.float32(0)
            for i in range(size):
                fit += asked[i] * known[key, i]
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
                found[i] += weight * told[key, i]
