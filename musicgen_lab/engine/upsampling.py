"""Transposed convolutions as plain products, for the codec on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Upsampling(nn.Module):
    """A transposed convolution whose kernel is two strides long, as all of EnCodec's are.

    Every output block of one stride is then a product of two neighbouring inputs. torch leaves
    transposed convolutions to oneDNN, which makes a kernel for every length that it meets: where
    channels are few, that takes seconds for some lengths, and each clip of another duration has
    another one. This takes as long as oneDNN's own from the second time on.

    Parameters
    ----------
    conv : nn.ConvTranspose1d
        Without padding, groups or dilation.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        super().__init__()
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self._channels, stride = conv.out_channels, conv.stride[0]
        weight = conv.weight.detach()  # (in, out, 2 * stride)
        both = torch.cat([weight[..., :stride], weight[..., stride:]])  # (2 * in, out, stride)
        assert conv.bias is not None
        self.register_buffer("weight", both.flatten(1).T.contiguous())
        self.register_buffer("bias", conv.bias.detach().repeat_interleave(stride))

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Say whether a module is a transposed convolution that can be replaced."""
        return (
            isinstance(module, nn.ConvTranspose1d)
            and module.kernel_size[0] == 2 * module.stride[0]
            and module.bias is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (1, in, T) to (1, out, (T + 1) * stride)."""
        padded = F.pad(x[0], (1, 1))
        pairs = torch.cat([padded[:, 1:], padded[:, :-1]]).T  # (T + 1, 2 * in): this, the last
        blocks = F.linear(pairs, self.weight, self.bias).view(len(pairs), self._channels, -1)
        return blocks.transpose(0, 1).reshape(1, self._channels, -1)
