"""Attention of one step, in which a row's result never depends on the other rows.

On the CPU torch's attention gives each thread a piece of one buffer, and where the piece starts in
memory changes the last bits of what is computed in it: rows that share a call land in other pieces
in other company. Two products with a softmax between them take about as long and have no such
buffer. A matrix library may still choose its kernel by the number of rows, so `rows_may_share`
tries it; where a row's bits are not always the same, every row attends by itself.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

_TRIED_LENGTHS = (1, 2, 5, 13, 67, 250)  # keys


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the values that fit a row's one query, weighed by how well their keys fit it.

    Parameters
    ----------
    query : Tensor
        (B, H, 1, D)
    keys, values : Tensor
        (B, H, T, D)

    Returns
    -------
    Tensor
        (B, H, 1, D)
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, keys, values)
    # Products choose their kernel by strides as well: one row must look like many.
    columns = query.contiguous().view(*query.shape[:2], -1, 1)  # (B, H, D, 1)
    fit = torch.matmul(keys, columns).squeeze(3)  # (B, H, T)
    weights = torch.softmax(fit * query.shape[-1] ** -0.5, dim=-1)
    return torch.matmul(weights.unsqueeze(2), values)


@functools.cache
def rows_may_share(
    heads: int, head_dim: int, *, rows: int, device: torch.device, dtype: torch.dtype, threads: int
) -> bool:
    """Say whether rows that share a call of `attend` come out as each does alone, bit for bit.

    Parameters
    ----------
    heads, head_dim : int
    rows : int
        The most rows of a step.
    device, dtype : torch.device, torch.dtype
        Where the cache is, and its precision.
    threads : int
        Of the CPU.

    Returns
    -------
    bool
        True without a trial anywhere but on the CPU.
    """
    if device.type != "cpu":
        return True
    generator = torch.Generator().manual_seed(0)
    shape = (rows, heads, max(_TRIED_LENGTHS), head_dim)
    keys = torch.randn(shape, generator=generator).to(dtype)
    query = torch.randn((rows, heads, 1, head_dim), generator=generator).to(dtype)
    counts = {1, 2, 3, rows // 2, rows - 1, rows} & set(range(1, rows + 1))
    for length in _TRIED_LENGTHS:
        known = keys[:, :, :length]
        alone = torch.cat(
            [attend(query[r : r + 1], known[r : r + 1], known[r : r + 1]) for r in range(rows)]
        )
        for count in counts:
            for part in (slice(0, count), slice(rows - count, rows)):
                if not torch.equal(attend(query[part], known[part], known[part]), alone[part]):
                    return False
    return True
