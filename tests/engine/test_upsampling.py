"""Transposed convolutions as products are the same function."""

import pytest
import torch
from torch import nn

from musicgen_lab.engine.upsampling import Upsampling


@pytest.mark.parametrize(("stride", "length"), [(1, 1), (4, 1), (5, 37), (40, 111)])
def test_it_is_the_transposed_convolution(stride, length):
    torch.manual_seed(0)
    conv = nn.ConvTranspose1d(6, 3, 2 * stride, stride)
    x = torch.randn(1, 6, length)

    with torch.no_grad():
        expected, found = conv(x), Upsampling(conv)(x)

    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_other_kernels_are_left_alone():
    assert Upsampling.fits(nn.ConvTranspose1d(2, 2, 8, 4))
    assert not Upsampling.fits(nn.ConvTranspose1d(2, 2, 6, 4))
    assert not Upsampling.fits(nn.Conv1d(2, 2, 8, 4))
