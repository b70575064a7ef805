"""Attention of one step, in which a row's result never depends on the other rows.

On the CPU, torch's attention and its matrix products choose their kernels by the number of rows,
by strides, and by where a buffer starts in memory, and each choice changes the last bits of a row.
They also take twice as long as it takes to read the keys and values, on which a large batch spends
most of its time. The kernel here reads them once, each row and head by itself, in one order of
additions whatever stands beside it, and rows of all lengths go into one call. Elsewhere it is
torch's attention, over runs of like rows.
"""

from __future__ import annotations

import math
import threading

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.rows import Reach

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
    if keys.device.type != "cpu":
        return attend_in_runs(query, keys, values, reach)
    query = query.contiguous()  # other strides would be another kernel, with other last bits
    attended = torch.empty_like(query)
    tensors = (query, keys, values, reach.places, reach.lengths, attended)
    with _one_at_a_time:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        _attend_rows(*[tensor.numpy() for tensor in tensors])
    return attended


def attend_in_runs(query: Tensor, keys: Tensor, values: Tensor, reach: Reach) -> Tensor:
    """Return the same as `attend`, by torch's attention, with a call for every run of rows."""
    attended = []
    for run in reach.runs:
        asked = query[run.first : run.last].unsqueeze(2)  # (b, H, 1, D)
        known, told = (
            tensor[run.places, :, : run.length + reach.grown].expand(
                len(asked), -1, -1, -1
            )  # (b, H, T, D)
            for tensor in (keys, values)
        )
        attended.append(F.scaled_dot_product_attention(asked, known, told).squeeze(2))
    return torch.cat(attended)


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
