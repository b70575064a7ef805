"""The layers of EnCodec's decoder (SEANet), built from stored weights.

They are convolutions of stride 1, transposed convolutions, residual blocks and codebooks;
`codec_encoder` builds the encoder from them too. Importing transformers for them would take longer
than making a short clip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

_Kernel = Annotated[int, Field(ge=1, le=63)]


class CodecConfig(BaseModel):
    """The fields of a transformers `EncodecConfig` that decoding needs, with its defaults.

    Sizes are bounded, so that a damaged file cannot ask for absurd amounts of memory.
    """

    model_config = ConfigDict(frozen=True)

    sampling_rate: int = Field(24_000, ge=1)
    audio_channels: int = Field(1, ge=1, le=2)
    hidden_size: int = Field(128, ge=1, le=8192)
    num_filters: int = Field(32, ge=1, le=1024)
    num_residual_layers: int = Field(1, ge=0, le=16)
    upsampling_ratios: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [8, 5, 4, 2], min_length=1, max_length=8
    )
    norm_type: Literal["weight_norm"] = "weight_norm"
    kernel_size: _Kernel = 7
    last_kernel_size: _Kernel = 7
    residual_kernel_size: _Kernel = 3
    dilation_growth_rate: int = Field(2, ge=1, le=64)
    use_causal_conv: bool = True
    pad_mode: Literal["reflect", "constant", "replicate"] = "reflect"
    num_lstm_layers: int = Field(2, ge=1, le=16)
    trim_right_ratio: float = Field(1.0, ge=0.0, le=1.0)
    use_conv_shortcut: bool = True

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per codec frame."""
        return math.prod(self.upsampling_ratios)


class Convolution(nn.Module):
    """A convolution of stride 1 that keeps the length, from a weight of torch's `weight_norm`.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    name : str
        Prefix of its tensors.
    config : CodecConfig
    dilation : int
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str, config: CodecConfig, dilation: int = 1
    ) -> None:
        super().__init__()
        self.register_buffer("weight", _normalised(tensors, name))  # (out, in, kernel)
        self.register_buffer("bias", tensors[f"{name}.conv.bias"].float())
        self._dilation, self._mode = dilation, config.pad_mode
        total = (self.weight.shape[-1] - 1) * dilation
        self._right = 0 if config.use_causal_conv else total // 2
        self._left = total - self._right

    def widen(self, left: int, right: int) -> tuple[int, int]:
        """Return the neighbours at either end of the input that as many of the output need."""
        return left + self._left, right + self._right

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (1, in, T) to (1, out, T)."""
        padded = pad(x, self._left, self._right, self._mode)
        return F.conv1d(padded, self.weight, self.bias, dilation=self._dilation)


class Upsampling(nn.Module):
    """A transposed convolution whose kernel is two strides long, as one matrix product.

    Every output block of one stride is a product of two neighbouring inputs. On the CPU torch uses
    oneDNN for transposed convolutions, which compiles a kernel for every new length: with few
    channels that takes seconds for some lengths. The product takes as long as oneDNN's kernel
    without its compilation.

    Parameters
    ----------
    weight : Tensor
        (in, out, 2 * stride)
    bias : Tensor
        (out,)
    trim_left, trim_right : int
        Output samples to cut off at either end.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, *, trim_left: int = 0, trim_right: int = 0
    ) -> None:
        super().__init__()
        stride = weight.shape[-1] // 2
        self._channels, self._trim_left, self._trim_right = weight.shape[1], trim_left, trim_right
        both = torch.cat([weight[..., :stride], weight[..., stride:]])  # (2 * in, out, stride)
        self.register_buffer("weight", both.flatten(1).T.contiguous())
        self.register_buffer("bias", bias.repeat_interleave(stride))

    def widen(self, left: int, right: int) -> tuple[int, int]:
        """Return the neighbours at either end of the input that as many of the output need."""
        stride = self.weight.shape[0] // self._channels
        first = (self._trim_left - left) // stride - 1  # each block needs the input before it too
        last = (self._trim_left + right - 1) // stride
        return -first, last + 1

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (1, in, T) to (1, out, (T + 1) * stride - trim_left - trim_right)."""
        padded = F.pad(x[0], (1, 1))
        pairs = torch.cat([padded[:, 1:], padded[:, :-1]]).T  # (T + 1, 2 * in): this, the last
        blocks = F.linear(pairs, self.weight, self.bias).view(len(pairs), self._channels, -1)
        y = blocks.transpose(0, 1).reshape(1, self._channels, -1)
        return y[..., self._trim_left : y.shape[-1] - self._trim_right]


class ResidualBlock(nn.Module):
    """Two convolutions with ELU before each, added to the input."""

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str, config: CodecConfig, dilation: int
    ) -> None:
        super().__init__()
        self._first = Convolution(tensors, f"{name}.block.1", config, dilation)
        self._second = Convolution(tensors, f"{name}.block.3", config)
        self._shortcut = (
            Convolution(tensors, f"{name}.shortcut", config) if config.use_conv_shortcut else None
        )

    def widen(self, left: int, right: int) -> tuple[int, int]:
        """Return the neighbours at either end of the input that as many of the output need."""
        block = self._first.widen(*self._second.widen(left, right))
        direct = (left, right) if self._shortcut is None else self._shortcut.widen(left, right)
        return max(block[0], direct[0]), max(block[1], direct[1])

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (1, C, T) to (1, C, T)."""
        y: Tensor = self._second(F.elu(self._first(F.elu(x))))
        return y + (x if self._shortcut is None else self._shortcut(x))


def build_decoder(
    tensors: Mapping[str, Tensor], config: CodecConfig
) -> tuple[nn.Module, nn.LSTM | None, nn.Module]:
    """Build the decoder in three parts.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Of a transformers `EncodecModel`, in any precision.
    config : CodecConfig

    Returns
    -------
    before, lstm, after : nn.Module, nn.LSTM or None, nn.Module
        The first convolution; the LSTM, whose input is to be added to its output, or None if its
        weights are all zero (which is how a codec without one is stored); all layers after it.
    """
    before = Convolution(tensors, "decoder.layers.0", config)
    lstm = build_lstm(tensors, "decoder.layers.1.lstm", config.num_lstm_layers)
    after: list[nn.Module] = []
    index = 2
    for stride in config.upsampling_ratios:
        name = f"decoder.layers.{index + 1}"  # the activation before it has a number too
        weight, bias = _normalised(tensors, name), tensors[f"{name}.conv.bias"].float()
        if weight.shape[-1] != 2 * stride:
            raise ValueError(f"{name} has a kernel of {weight.shape[-1]}, not {2 * stride}")
        right = stride // 2
        if config.use_causal_conv:
            right = math.ceil(stride * config.trim_right_ratio)
        after += [nn.ELU(), Upsampling(weight, bias, trim_left=stride - right, trim_right=right)]
        index += 2
        for layer in range(config.num_residual_layers):
            dilation = config.dilation_growth_rate**layer
            after.append(ResidualBlock(tensors, f"decoder.layers.{index}", config, dilation))
            index += 1
    after += [nn.ELU(), Convolution(tensors, f"decoder.layers.{index + 1}", config)]
    return before, lstm, nn.Sequential(*after)


def context_frames(layers: nn.Module) -> tuple[int, int]:
    """Return the neighbouring frames, before and after, that a frame of the output depends on.

    Parameters
    ----------
    layers : nn.Module
        A part of the decoder, as `build_decoder` returns it.
    """
    left = right = 0
    for layer in reversed(list(layers)) if isinstance(layers, nn.Sequential) else [layers]:
        if isinstance(layer, Convolution | Upsampling | ResidualBlock):
            left, right = layer.widen(left, right)
    return left, right


def read_codebooks(tensors: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the vectors of the first codebooks: (count, card, D)."""
    names = [f"quantizer.layers.{k}.codebook.embed" for k in range(count)]
    return torch.stack([tensors[name].float() for name in names])


def build_lstm(tensors: Mapping[str, Tensor], name: str, layers: int) -> nn.LSTM | None:
    """Build an LSTM from its weights; None if all of them are zero."""
    weights = {
        f"{kind}_l{layer}": tensors[f"{name}.{kind}_l{layer}"].float()
        for layer in range(layers)
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    if not any(weight.any() for weight in weights.values()):
        return None
    width = weights["weight_hh_l0"].shape[1]
    with torch.device("meta"):  # random first values would be thrown away
        lstm = nn.LSTM(width, width, layers)
    lstm.load_state_dict(weights, assign=True)
    return lstm.requires_grad_(False)


def _normalised(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return the weight that torch's `weight_norm` computes from a magnitude and a direction."""
    stem = f"{name}.conv.parametrizations.weight"
    length, direction = (tensors[f"{stem}.original{i}"].float() for i in (0, 1))
    weight: Tensor = torch._weight_norm(direction, length, 0)
    return weight


def pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the last axis; if reflection padding exceeds the length, zeros are appended first."""
    if left + right == 0:
        return x
    length, longest = x.shape[-1], max(left, right)
    if mode != "reflect" or length > longest:
        return F.pad(x, (left, right), mode)
    missing = longest - length + 1
    return F.pad(F.pad(x, (0, missing)), (left, right), mode)[..., :-missing]
