"""`CodecEncoder`: the encoder of EnCodec, from audio to codes.

It is needed only for clips that begin with a sound, so it is loaded when the first one comes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_lab.engine.codec import CodecFiles
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.seanet import (
    CodecConfig,
    Convolution,
    ResidualBlock,
    build_lstm,
    pad,
    read_codebooks,
)
from musicgen_lab.models.checkpoint import TensorReader


class Downsampling(Convolution):
    """A convolution whose kernel is two strides long."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, config: CodecConfig) -> None:
        super().__init__(tensors, name, config)
        self._stride = self.weight.shape[-1] // 2
        self._right = 0 if config.use_causal_conv else self._stride // 2
        self._left = self._stride - self._right

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (1, in, T) to (1, out, T / stride), for whole strides."""
        padded = pad(x, self._left, self._right, self._mode)
        return F.conv1d(padded, self.weight, self.bias, stride=self._stride)


class CodecEncoder:
    """EnCodec's encoder.

    Parameters
    ----------
    files : CodecFiles
    channels : int
        1, or 2 for two channels that are encoded separately, with their codebooks interleaved.
    codebooks : int
        Codebooks of all channels together.
    device : torch.device
        Where to compute, in float32.
    """

    def __init__(
        self, files: CodecFiles, *, channels: int, codebooks: int, device: torch.device
    ) -> None:
        tensors, config = TensorReader(files.weights), files.config
        self._channels, self._device = channels, device
        self._tables = read_codebooks(tensors, codebooks // channels).to(device)  # (K, card, D)
        before, lstm, after = _build_encoder(tensors, config)
        self._before, self._after = before.to(device), after.to(device)
        self._lstm = None if lstm is None else lstm.to(device)

    @torch.inference_mode()
    def encode(self, samples: Tensor) -> Tensor:
        """Encode audio.

        Parameters
        ----------
        samples : Tensor
            (channels, frames * samples_per_frame) of float32.

        Returns
        -------
        Tensor
            (K, frames) codes, the channels' codebooks interleaved.
        """
        with exact_convolutions(self._device):
            codes = [self._encode_channel(channel) for channel in samples.to(self._device)]
        return torch.stack(codes, dim=1).flatten(0, 1)

    def _encode_channel(self, samples: Tensor) -> Tensor:
        """Encode one channel: (n,) to (K / channels, frames)."""
        x = self._before(samples[None, None])
        if self._lstm is not None:
            x = x + self._lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)
        residual = self._after(x)[0].T  # (frames, D)
        codes = []
        for table in self._tables:
            # The nearest vector, by the arithmetic of transformers, which decides near ties.
            squares = residual.pow(2).sum(1, keepdim=True)
            distances = squares - 2 * residual @ table.T + table.T.pow(2).sum(0, keepdim=True)
            nearest = distances.argmin(dim=1)
            residual = residual - table[nearest]
            codes.append(nearest)
        return torch.stack(codes)


def _build_encoder(
    tensors: Mapping[str, Tensor], config: CodecConfig
) -> tuple[nn.Module, nn.LSTM | None, nn.Module]:
    """Build the encoder in three parts: the layers before the LSTM, the LSTM, those after it."""
    before: list[nn.Module] = [Convolution(tensors, "encoder.layers.0", config)]
    index = 1
    for _ in config.upsampling_ratios:
        for layer in range(config.num_residual_layers):
            dilation = config.dilation_growth_rate**layer
            before.append(ResidualBlock(tensors, f"encoder.layers.{index}", config, dilation))
            index += 1
        before += [nn.ELU(), Downsampling(tensors, f"encoder.layers.{index + 1}", config)]
        index += 2
    lstm = build_lstm(tensors, f"encoder.layers.{index}.lstm", config.num_lstm_layers)
    last = Convolution(tensors, f"encoder.layers.{index + 2}", config)
    return nn.Sequential(*before), lstm, nn.Sequential(nn.ELU(), last)
