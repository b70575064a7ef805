# ruff: noqa: ANN001, ANN201 (the kernel's arguments are triton's own)
"""Products of a few rows with large weights on a GPU, in which rows never depend on each other.

A step multiplies 2 to about 100 rows with weights of millions of elements, so its time is that of
reading the weights. The weights are the left operand of the tensor-core instruction and the rows,
padded to 16, 32 or 64, the right one, so that few rows fill it. Where one program per block of
output columns would leave most of the GPU idle, K is split (split-K): each split writes its partial
product, and the kernel that reads them adds them in order, without atomics, so that a row has the
same bits in every run. The bits do not depend on the other rows or their number: each element of
the result is a separate sum over K, split by the shape of the weights only, and the tensor cores
add it in the same way for every padding (tests/engine/test_cuda.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from musicgen_lab.engine.kernels.dependent_launch import (
    has_dependent_launch,
    let_next_start,
    wait_for_previous,
)

_PROGRAMS = 128  # of one product: about one for each multiprocessor of an H100
_ROWS_MIN, _ROWS_MAX = 16, 64  # that a program pads to
_K_MIN = 128  # of one split


@dataclass(frozen=True)
class Tiles:
    """How a product is divided into programs.

    Attributes
    ----------
    block_n, block_k : int
        Output columns of a program, and elements of K that it reads at once.
    splits : int
        Parts of K.
    warps, stages : int
        Of each program: its warps, and the pipelined loads of blocks of K.
    """

    block_n: int
    block_k: int
    splits: int
    warps: int
    stages: int


def choose_tiles(n: int, k: int, itemsize: int, *, split: bool) -> Tiles:
    """Return the tiles of a product, which depend on the weights only, never on the rows.

    Parameters
    ----------
    n, k : int
        Shape of the weights.
    itemsize : int
        Bytes of an element.
    split : bool
        Whether K may be split.
    """
    block_n, block_k = 64, 128 if itemsize == 2 else 32
    splits = 1
    while split and splits < 8 and 2 * splits * triton.cdiv(n, block_n) <= _PROGRAMS * 1.25:
        if k < 2 * splits * _K_MIN:
            break
        splits *= 2
    return Tiles(block_n, block_k, splits, warps=4, stages=4)


class SplitLinear:
    """A linear layer over rows on a GPU.

    Parameters
    ----------
    weight : Tensor
        (N, K), contiguous.
    bias : Tensor or None
        (N,); for a product that is not split.
    gelu : bool
        Whether GELU follows; for a product that is not split.
    tiles : Tiles or None
        The tiles; None for the automatic choice.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        split: bool = True,
        gelu: bool = False,
        tiles: Tiles | None = None,
    ) -> None:
        n, k = weight.shape
        self._weight, self._bias, self._gelu = weight, bias, gelu
        self._tiles = tiles or choose_tiles(n, k, weight.itemsize, split=split)
        blocks = triton.cdiv(k, self._tiles.block_k)
        self._k_per_split = triton.cdiv(blocks, self._tiles.splits) * self._tiles.block_k
        self._dependent = has_dependent_launch(weight.device)

    def __call__(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Multiply rows.

        Parameters
        ----------
        x : Tensor
            (B, K), contiguous.
        dtype : torch.dtype
            Of the result.

        Returns
        -------
        Tensor
            (splits, B, N), whose sum over the splits is the product.
        """
        (rows, k), n, tiles = x.shape, len(self._weight), self._tiles
        out = torch.empty(tiles.splits, rows, n, device=x.device, dtype=dtype)
        block_rows = min(max(triton.next_power_of_2(rows), _ROWS_MIN), _ROWS_MAX)
        grid = (triton.cdiv(n, tiles.block_n), tiles.splits, triton.cdiv(rows, block_rows))
        multiply_rows[grid](
            x,
            self._weight,
            self._bias,
            out,
            rows,
            n,
            k,
            ROWS=block_rows,
            BLOCK_N=tiles.block_n,
            BLOCK_K=tiles.block_k,
            K_PER_SPLIT=self._k_per_split,
            EVEN=n % tiles.block_n == 0 and k == self._k_per_split * tiles.splits,
            GELU=self._gelu,
            DEPENDENT=self._dependent,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            launch_pdl=self._dependent,
        )
        return out


@triton.jit(do_not_specialize=["rows"])  # type: ignore[misc, untyped-decorator]
def multiply_rows(  # type: ignore[no-untyped-def]
    x,
    weight,
    bias,
    out,
    rows,
    n,
    k,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    K_PER_SPLIT: tl.constexpr,
    EVEN: tl.constexpr,
    GELU: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Multiply ROWS rows with BLOCK_N rows of the weights, over K_PER_SPLIT numbers of K.

    EVEN says that neither N nor K has a remainder, so that nothing is masked.
    """
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    step = tl.arange(0, BLOCK_K)
    first = tl.program_id(1) * K_PER_SPLIT
    weights = weight + column.to(tl.int64)[:, None] * k + first
    let_next_start(DEPENDENT)
    wait_for_previous(DEPENDENT)
    weights += step[None, :]
    activations = x + row[:, None] * k + first + step[None, :]
    real = row < rows
    product = tl.zeros((BLOCK_N, ROWS), tl.float32)
    for start in range(0, K_PER_SPLIT, BLOCK_K):
        if EVEN:
            w = tl.load(weights + start)
            a = tl.load(activations + start, mask=real[:, None], other=0.0)
        else:
            within = (first + start + step < k)[None, :]
            w = tl.load(weights + start, mask=(column < n)[:, None] & within, other=0.0)
            a = tl.load(activations + start, mask=real[:, None] & within, other=0.0)
        product = tl.dot(w, tl.trans(a), product, input_precision="ieee")
    if bias is not None:
        product += tl.load(bias + column, mask=column < n, other=0.0).to(tl.float32)[:, None]
    if GELU:
        product = 0.5 * product * (1 + tl.erf(product * 0.7071067811865476))
    result = out + (tl.program_id(1) * rows + row)[None, :] * n + column[:, None]
    kept = real[None, :] & (column < n)[:, None]
    tl.store(result, product.to(out.dtype.element_ty), mask=kept)
