# ruff: noqa: ANN001, ANN201 (the kernels' arguments are triton's own)
"""The operations between the products of a step on a GPU: embedding, residual and layer norm.

Each row is one program, which keeps it in registers and computes in float32, so that a row cannot
depend on the others and is read once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from musicgen_lab.engine.kernels.dependent_launch import (
    has_dependent_launch,
    let_next_start,
    wait_for_previous,
)

Norm = tuple[Tensor, Tensor]  # weight and bias, (dim,)
NORM_EPS = 1e-5
_COLUMNS_PER_WARP = 128


def embed(
    tokens: Tensor, lengths: Tensor, embedding: Tensor, positions: Tensor, norm: Norm
) -> tuple[Tensor, Tensor]:
    """Start a step: embed the tokens of each row and apply the first layer norm.

    Parameters
    ----------
    tokens : Tensor
        (B, K), contiguous.
    lengths : Tensor
        (B,) steps of each row, this one included.
    embedding : Tensor
        (K, card + 1, dim)
    positions : Tensor
        (steps, dim)
    norm : tuple of Tensor
        Weight and bias, (dim,).

    Returns
    -------
    x, normed : Tensor
        (B, dim) the residual stream, float32, and the normalised one, in the model's precision.
    """
    (rows, codebooks), dim = tokens.shape, embedding.shape[2]
    x = torch.empty(rows, dim, device=tokens.device, dtype=torch.float32)
    normed = torch.empty_like(x, dtype=embedding.dtype)
    embed_rows[(rows,)](
        tokens,
        lengths,
        embedding,
        positions,
        *norm,
        x,
        normed,
        dim,
        embedding.stride(0),
        NORM_EPS,
        CODEBOOKS=codebooks,
        SIZE=triton.next_power_of_2(dim),
        DEPENDENT=has_dependent_launch(x.device),
        num_warps=_warps_for(dim),
    )
    return x, normed


def add_and_normalise(partials: Tensor, x: Tensor, norm: Norm) -> Tensor:
    """Add a product to the residual stream and return the result normalised.

    Parameters
    ----------
    partials : Tensor
        (splits, b, dim) of float32, whose sum over the splits is added to the first b rows.
    x : Tensor
        (B, dim) of float32, the residual stream, written in place.
    norm : tuple of Tensor
        Weight and bias, (dim,).

    Returns
    -------
    Tensor
        (B, dim), in the precision of `norm`.
    """
    rows, dim = x.shape
    normed = torch.empty_like(x, dtype=norm[0].dtype)
    dependent = has_dependent_launch(x.device)
    add_and_normalise_rows[(rows,)](
        partials,
        x,
        *norm,
        normed,
        partials.shape[1],
        dim,
        NORM_EPS,
        SPLITS=len(partials),
        SIZE=triton.next_power_of_2(dim),
        DEPENDENT=dependent,
        num_warps=_warps_for(dim),
        launch_pdl=dependent,
    )
    return normed


def _warps_for(dim: int) -> int:
    warps: int = triton.next_power_of_2(dim) // _COLUMNS_PER_WARP
    return min(max(warps, 1), 16)


@triton.jit  # type: ignore[misc, untyped-decorator]
def normalise(value, scale, shift, real, dim, eps):  # type: ignore[no-untyped-def]
    """Apply layer norm to one row; `real` masks its columns."""
    mean = tl.sum(value, 0) / dim
    centred = tl.where(real, value - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / dim
    return centred * tl.rsqrt(variance + eps) * scale + shift


@triton.jit  # type: ignore[misc, untyped-decorator]
def embed_rows(  # type: ignore[no-untyped-def]
    tokens,
    lengths,
    embedding,
    positions,
    norm_weight,
    norm_bias,
    x,
    normed,
    dim,
    codebook_stride,
    eps,
    CODEBOOKS: tl.constexpr,
    SIZE: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Embed one row and normalise it; SIZE is the next power of two of dim."""
    let_next_start(DEPENDENT)
    row = tl.program_id(0)
    column = tl.arange(0, SIZE)
    real = column < dim
    scale = tl.load(norm_weight + column, mask=real, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + column, mask=real, other=0.0).to(tl.float32)
    position = tl.load(lengths + row).to(tl.int64) - 1
    value = tl.zeros((SIZE,), tl.float32)
    for codebook in tl.static_range(CODEBOOKS):
        token = tl.load(tokens + row * CODEBOOKS + codebook).to(tl.int64)
        of_token = embedding + codebook * codebook_stride + token * dim + column
        value += tl.load(of_token, mask=real, other=0.0).to(tl.float32)
    value += tl.load(positions + position * dim + column, mask=real, other=0.0).to(tl.float32)
    tl.store(x + row * dim + column, value, mask=real)
    result = normalise(value, scale, shift, real, dim, eps)
    tl.store(normed + row * dim + column, result.to(normed.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["added_rows"])  # type: ignore[misc, untyped-decorator]
def add_and_normalise_rows(  # type: ignore[no-untyped-def]
    partials,
    x,
    norm_weight,
    norm_bias,
    normed,
    added_rows,
    dim,
    eps,
    SPLITS: tl.constexpr,
    SIZE: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Add and normalise one row; SIZE is the next power of two of dim."""
    let_next_start(DEPENDENT)
    row = tl.program_id(0)
    column = tl.arange(0, SIZE)
    real = column < dim
    scale = tl.load(norm_weight + column, mask=real, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + column, mask=real, other=0.0).to(tl.float32)
    wait_for_previous(DEPENDENT)
    residual = x + row * dim + column
    value = tl.load(residual, mask=real, other=0.0)
    added = tl.zeros((SIZE,), tl.float32)
    for split in tl.static_range(SPLITS):
        partial = partials + (split * added_rows + row) * dim + column
        added += tl.load(partial, mask=real & (row < added_rows), other=0.0)
    value += added
    tl.store(residual, value, mask=real)
    result = normalise(value, scale, shift, real, dim, eps)
    tl.store(normed + row * dim + column, result.to(normed.dtype.element_ty), mask=real)
