"""The position embedding of every step."""

from __future__ import annotations

import torch
from torch import Tensor

from musicgen_lab.models.config import ModelConfig


def sinusoidal_positions(config: ModelConfig) -> Tensor:
    """Return the position embedding of every step, as audiocraft computes it in float32.

    Returns
    -------
    Tensor
        (steps, dim), cosines first.
    """
    half = config.dim // 2
    positions = torch.arange(config.max_steps, dtype=torch.float32)[:, None]
    channels = torch.arange(half, dtype=torch.float32)[None]
    max_period = torch.full([], config.max_period, dtype=torch.float32)
    phase = positions / (max_period ** (channels / (half - 1)))
    return config.positional_scale * torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)
