"""Linear layers in which a row's result never depends on the other rows.

A matrix library selects its kernel by the number of rows, so the last bits of a row can change with
the batch size, and a clip would depend on the rest of its batch. There are four implementations:

`HalfWeightLinear` (CPU, float32) stores the weights in 16 bits and computes in float32 with FBGEMM.
For weights that were float16 originally, as all released ones, this is exact and halves the memory
traffic. Other float32 weights are stored as the sum of two float16 numbers, which keep 22 of their
24 bits. FBGEMM divides the rows into blocks with a kernel for each block size. With AVX-512 all
kernels add in the same order; with AVX2 those for one and two rows use another order, so the number
of rows is padded to a multiple of three (`row_multiple`, determined by a trial).

`PackedLinear` (CPU, bfloat16) stores the weights in oneDNN's packed layout. It is used if a trial
with every possible number of rows gives equal bits.

`PlainLinear` is torch's linear layer, used if it passes the same trial.

`FixedRowsLinear` (otherwise) always multiplies the same number of rows, padded with zeros. That
number comes from the engine's configuration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

_multiply_half = torch.ops.quantized.linear_dynamic_fp16.default
_LOW_SCALE = 2.0**11  # lifts the low halves into float16's normal range
_TRIED_VALUES = 4_000_000
_FLOAT16_MAX = torch.finfo(torch.float16).max
_ROW_MULTIPLES = (1, 2, 3, 4, 6, 12)
_TRIED_ROWS = 480  # FBGEMM cuts rows into blocks of at most 120 first


class Linear(Protocol):
    """A linear layer over rows: (B, in) to (B, out)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""


_Maker = Callable[[Tensor, Tensor | None, int], Linear]  # of weight, bias and rows


class HalfWeightLinear:
    """A product of float32 rows with weights stored in float16, independent for each row.

    Parameters
    ----------
    weight : Tensor
        (out, in), of any floating type.
    bias : Tensor or None
        (out,)
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        bias = None if bias is None else bias.float()
        high = weight.half().float().contiguous()
        self._high = torch.ops.quantized.linear_prepack_fp16(high, bias)
        self._low = None
        if weight.dtype != torch.float16 and not torch.equal(weight.float(), high):
            low = (weight.float() - high) * _LOW_SCALE
            self._low = torch.ops.quantized.linear_prepack_fp16(low.contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""
        rows = x.shape[0]
        missing = -rows % (row_multiple(torch.get_num_threads()) or 1)
        if missing:
            x = F.pad(x, (0, 0, 0, missing))
        y: Tensor = _multiply_half(x, self._high)
        if self._low is not None:
            y = y.add_(_multiply_half(x, self._low), alpha=1 / _LOW_SCALE)
        return y[:rows]


class PlainLinear:
    """torch's product of rows with weights.

    Parameters
    ----------
    weight : Tensor
        (out, in)
    bias : Tensor or None
        (out,)
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""
        return F.linear(x, self._weight, self._bias)


class PackedLinear:
    """A product of bfloat16 rows with weights that oneDNN has packed once.

    Parameters
    ----------
    weight : Tensor
        (out, in) of bfloat16.
    bias : Tensor or None
        (out,)
    rows : int
        The number of rows to pack for; other numbers work too.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


class FixedRowsLinear:
    """torch's product with weights, always with the same number of rows.

    Parameters
    ----------
    weight : Tensor
        (out, in)
    bias : Tensor or None
        (out,)
    rows : int
        Rows of every product; fewer are padded with zeros, more are split.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        self._weight = weight
        self._bias = bias
        self._rows = rows

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""
        count = x.shape[0]
        if count == self._rows:
            return F.linear(x, self._weight, self._bias)
        pieces = []
        for piece in torch.split(x, self._rows):
            filled = F.pad(piece, (0, 0, 0, self._rows - piece.shape[0]))
            pieces.append(F.linear(filled, self._weight, self._bias))
        return torch.cat(pieces)[:count]


def half_weights_are_fast(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether `HalfWeightLinear` works on this machine for a device and precision."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and "fbgemm" in torch.backends.quantized.supported_engines
        and row_multiple(torch.get_num_threads()) is not None
    )


@functools.cache
def row_multiple(threads: int) -> int | None:
    """Determine the row multiple at which FBGEMM uses one order of additions, by a trial.

    Parameters
    ----------
    threads : int
        torch's number of threads, on which the result depends.

    Returns
    -------
    int or None
        1 if any number of rows works; None if no small multiple does.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=generator)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, None)
    x = torch.randn(_TRIED_ROWS, 64, generator=generator)
    whole = _multiply_half(x, packed)
    for multiple in _ROW_MULTIPLES:
        numbers = range(multiple, _TRIED_ROWS, multiple)
        if all(torch.equal(_multiply_half(x[:n], packed), whole[:n]) for n in numbers):
            return multiple
    return None


def make_linear(
    weight: Tensor, bias: Tensor | None, *, device: torch.device, dtype: torch.dtype, rows: int
) -> Linear:
    """Return a layer with independent rows, the fastest available.

    Parameters
    ----------
    weight : Tensor
        (out, in), on any device.
    bias : Tensor or None
        (out,)
    device, dtype : torch.device, torch.dtype
        Where and in which precision to compute.
    rows : int
        The most rows of a step in the engine's configuration.

    Returns
    -------
    Linear
    """
    if half_weights_are_fast(device, dtype) and weight.abs().max() <= _FLOAT16_MAX:
        return HalfWeightLinear(weight, bias)
    moved = weight.to(device, dtype).contiguous()
    moved_bias = None if bias is None else bias.to(device, dtype)
    shape, threads = (moved.shape[0], moved.shape[1]), torch.get_num_threads()
    for candidate in _candidates(device, dtype):
        if _rows_are_independent(candidate, shape, bias is not None, dtype, device, rows, threads):
            return candidate(moved, moved_bias, rows)
    return FixedRowsLinear(moved, moved_bias, rows)


def _plain(weight: Tensor, bias: Tensor | None, rows: int) -> Linear:
    return PlainLinear(weight, bias)


def _candidates(device: torch.device, dtype: torch.dtype) -> list[_Maker]:
    """Return the candidate layers, the fastest first."""
    packed = device.type == "cpu" and dtype == torch.bfloat16 and bfloat16_is_fast()
    return [PackedLinear, _plain] if packed else [_plain]


def bfloat16_is_fast() -> bool:
    """Return whether this processor multiplies bfloat16 in hardware."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@functools.cache
def _rows_are_independent(
    make: _Maker,
    shape: tuple[int, int],
    biased: bool,
    dtype: torch.dtype,
    device: torch.device,
    rows: int,
    threads: int,
) -> bool:
    """Return whether every number of rows gives equal bits for each row.

    Kernels may differ in only one of a hundred thousand values, so millions are compared.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(device, dtype)
    layer = make(weight, weight[:, 0].contiguous() if biased else None, rows)
    trials = 1 + _TRIED_VALUES // (rows**2 * shape[0])
    for _ in range(trials):
        x = torch.randn(rows, shape[1], generator=generator).to(device, dtype)
        whole = layer(x)
        for n in range(1, rows):
            if not (torch.equal(layer(x[:n]), whole[:n]) and torch.equal(layer(x[n:]), whole[n:])):
                return False
    return True
