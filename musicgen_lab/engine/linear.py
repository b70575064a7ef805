"""Linear layers in which a row's result never depends on the other rows.

A matrix library picks its kernel by the number of rows, so the same row can come out with other
last bits beside other rows; a clip would then depend on its company. Four ways, whichever holds:

`HalfWeightLinear` (CPU, float32) keeps the weights in 16 bits and computes in float32 with FBGEMM.
For weights that came from float16, as all released ones did, this is exact, and it reads half the
memory. Other float32 weights are kept as two float16 halves, which hold 22 of their 24 bits. FBGEMM
cuts the rows into pieces with a kernel for each size of piece; with AVX-512 all kernels add in one
order, with AVX2 those of one and two rows add in another, so that there the number of rows is
filled up to a multiple of three (`row_multiple`, found by a trial).

`PackedLinear` (CPU, bfloat16) keeps the weights in the order in which oneDNN reads them. It is used
where a trial with every number of rows that the engine may have comes out the same bit for bit.

`PlainLinear` is torch's own, used after the same trial.

`FixedRowsLinear` (everything else) always multiplies the same number of rows, the rest being
zeros. That number comes from the engine's configuration.
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
    """float32 rows times weights kept in float16, each row by itself.

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
    """Any rows times weights as they are.

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
    """bfloat16 rows times weights that oneDNN has packed once.

    Parameters
    ----------
    weight : Tensor
        (out, in) of bfloat16.
    bias : Tensor or None
        (out,)
    rows : int
        The number of rows to pack for; others may be given.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, in)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


class FixedRowsLinear:
    """Any rows times weights as they are, always as many rows at once.

    Parameters
    ----------
    weight : Tensor
        (out, in)
    bias : Tensor or None
        (out,)
    rows : int
        Rows of every product; fewer are filled up with zeros, more are cut into pieces.
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
    """Say whether this machine has the kernels of `HalfWeightLinear` for a device and precision."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and "fbgemm" in torch.backends.quantized.supported_engines
        and row_multiple(torch.get_num_threads()) is not None
    )


@functools.cache
def row_multiple(threads: int) -> int | None:
    """Return the number of rows whose multiples FBGEMM all adds up in one order, by a trial.

    Parameters
    ----------
    threads : int
        Of torch; an answer is for so many.

    Returns
    -------
    int or None
        1 where any number of rows will do; None where no small multiple does.
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
    """Make a layer whose rows do not depend on each other.

    Parameters
    ----------
    weight : Tensor
        (out, in), on any device.
    bias : Tensor or None
        (out,)
    device, dtype : torch.device, torch.dtype
        Where and in what precision to compute.
    rows : int
        The most rows that the engine's configuration has in a step.

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
    """Return the layers to try, the fastest first."""
    packed = device.type == "cpu" and dtype == torch.bfloat16 and bfloat16_is_fast()
    return [PackedLinear, _plain] if packed else [_plain]


def bfloat16_is_fast() -> bool:
    """Say whether this processor multiplies bfloat16 in hardware."""
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
    """Say whether rows come out the same bit for bit with every number of others around them.

    Kernels may differ in one value of a hundred thousand only, so millions are compared.
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
