# ruff: noqa: ANN001, ANN201 (the kernel's arguments are triton's own)
"""Products of a few rows with large weights on a GPU, in which rows never depend on each other.

A step multiplies 2 to about 100 rows with weights of millions of elements, so its time is that of
reading the weights. The weights are the left operand of the tensor-core instruction and the rows,
padded to 16, 32, 64 or 128, the right one, so that few rows fill it. Where one program per block of
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
_ROWS_MIN, _ROWS_MAX = 16, 128  # that a program pads to
_STAGES_MAX = 4
_AHEAD_BYTES = 1024  # of each row of the weights, loaded ahead
_ROWS_FEW = 32
_SHARED_BYTES = 99 * 1024  # of a program on GPUs of compute capability 8.6 and 8.9
_K_MIN = 256  # of one split


@dataclass(frozen=True)
class Tiles:
    """How a product is divided into programs.

    Attributes
    ----------
    block_n, block_k : int
        Output columns of a program, and elements of K that it reads at once.
    splits : int
        Parts of K.
    k_per_split : int
        Elements of K in a part, a multiple of `block_k`.
    """

    block_n: int
    block_k: int
    splits: int
    k_per_split: int


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
    return cut(k, block_n=block_n, block_k=block_k, splits=splits)


def cut(k: int, *, block_n: int, block_k: int, splits: int) -> Tiles:
    """Return the tiles that cut K into a number of parts, in whole blocks."""
    blocks = triton.cdiv(triton.cdiv(k, block_k), splits)
    return Tiles(block_n, block_k, splits, blocks * block_k)


@dataclass(frozen=True)
class Loads:
    """How a program of a number of rows loads its blocks; the results do not depend on it.

    Attributes
    ----------
    ahead : int
        The last elements of its part of K, whose weights it loads before it waits for the kernel
        that makes the rows: a power of two, in whole blocks.
    stages : int
        The pipelined loads of the other blocks.
    warps : int
    """

    ahead: int
    stages: int
    warps: int


def choose_loads(
    tiles: Tiles, block_rows: int, itemsize: int, *, shared_bytes: int, dependent: bool
) -> Loads:
    """Return the fastest loads that fit in a program's memory.

    Much is loaded ahead where the products of few rows would otherwise wait for the first weights.

    Parameters
    ----------
    tiles : Tiles
    block_rows : int
        Rows of a program.
    itemsize : int
        Bytes of an element.
    shared_bytes : int
        Shared memory that a program may have.
    dependent : bool
        Whether a kernel may start before the previous one has ended.
    """
    short = tiles.k_per_split * itemsize <= _AHEAD_BYTES
    much = dependent and (short or block_rows <= _ROWS_FEW)
    most = _AHEAD_BYTES // itemsize if much else tiles.block_k
    blocks = min(tiles.k_per_split, most) // tiles.block_k
    ahead = (1 << (blocks.bit_length() - 1)) * tiles.block_k
    left = shared_bytes - ahead * tiles.block_n * itemsize
    stage_bytes = tiles.block_k * (tiles.block_n + block_rows) * itemsize
    stages = max(min(left // stage_bytes, _STAGES_MAX), 1)
    return Loads(ahead, stages, warps=4 if block_rows <= 64 else 8)


def _shared_bytes(device: torch.device) -> int:
    """Return the shared memory that a program may have, in bytes."""
    if device.type != "cuda":  # triton's interpreter
        return _SHARED_BYTES
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return int(properties["max_shared_mem"])


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
        self._dependent = has_dependent_launch(weight.device)
        self._shared_bytes = _shared_bytes(weight.device)

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
        loads = choose_loads(
            tiles,
            block_rows,
            x.itemsize,
            shared_bytes=self._shared_bytes,
            dependent=self._dependent,
        )
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
            K_PER_SPLIT=tiles.k_per_split,
            AHEAD=loads.ahead,
            EVEN=n % tiles.block_n == 0 and k == tiles.k_per_split * tiles.splits,
            GELU=self._gelu,
            DEPENDENT=self._dependent,
            num_warps=loads.warps,
            num_stages=loads.stages,
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
    AHEAD: tl.constexpr,
    EVEN: tl.constexpr,
    GELU: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Multiply ROWS rows with BLOCK_N rows of the weights, over K_PER_SPLIT numbers of K.

    EVEN says that neither N nor K has a remainder, so that nothing is masked.
    """
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * K_PER_SPLIT
    let_next_start(DEPENDENT)
    weights = weight + column.to(tl.int64)[:, None] * k + first
    activations = x + row[:, None] * k + first
    real = row < rows
    # The last weights are loaded before the wait for the kernel that makes the rows.
    last = K_PER_SPLIT - AHEAD + tl.arange(0, AHEAD)[None, :]
    if EVEN:
        last_w = tl.load(weights + last)
    else:
        last_w = tl.load(weights + last, mask=(column < n)[:, None] & (first + last < k), other=0.0)
    wait_for_previous(DEPENDENT)
    last_a = tl.load(activations + last, mask=real[:, None] & (first + last < k), other=0.0)
    product = tl.zeros((BLOCK_N, ROWS), tl.float32)
    for start in range(0, K_PER_SPLIT - AHEAD, BLOCK_K):
        step = start + tl.arange(0, BLOCK_K)[None, :]
        if EVEN:
            w = tl.load(weights + step)
            a = tl.load(activations + step, mask=real[:, None], other=0.0)
        else:
            within = first + step < k
            w = tl.load(weights + step, mask=(column < n)[:, None] & within, other=0.0)
            a = tl.load(activations + step, mask=real[:, None] & within, other=0.0)
        product = tl.dot(w, tl.trans(a), product, input_precision="ieee")
    # Without this the compiler waits for these rows before the loop.
    last_a = tl.where(real[:, None], last_a, 0.0)
    product = tl.dot(last_w, tl.trans(last_a), product, input_precision="ieee")
    if bias is not None:
        product += tl.load(bias + column, mask=column < n, other=0.0).to(tl.float32)[:, None]
    if GELU:
        product = 0.5 * product * (1 + tl.erf(product * 0.7071067811865476))
    result = out + (tl.program_id(1) * rows + row)[None, :] * n + column[:, None]
    kept = real[None, :] & (column < n)[:, None]
    tl.store(result, product.to(out.dtype.element_ty), mask=kept)
