"""The configurations of the released models, without their weights and without torch."""

from __future__ import annotations

from typing import Literal

from musicgen_lab.models.config import ModelConfig, Source

T5_BASE_WIDTH = 768
_SIZES = {"small": (1024, 24, 16), "medium": (1536, 48, 24), "large": (2048, 48, 32)}
_DELAYS = [0, 1, 2, 3]


def released_config(size: str, *, stereo: bool = False) -> ModelConfig:
    """Return the configuration of a released model.

    Parameters
    ----------
    size : {"small", "medium", "large"}
    stereo : bool
        Whether the left and right channels have separate codebooks.

    Returns
    -------
    ModelConfig
        As `conversion.convert` writes it, except for the checksums of the source.
    """
    dim, layers, heads = _SIZES[size]
    channels: Literal[1, 2] = 2 if stereo else 1
    return ModelConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        ffn_dim=4 * dim,
        text_dim=T5_BASE_WIDTH,
        card=2048,
        delays=[delay for delay in _DELAYS for _ in range(channels)],
        channels=channels,
        sample_rate=32_000,
        frame_rate=50.0,
        max_period=10_000.0,
        dtype="float16",
        source=Source(name=f"facebook/musicgen-{'stereo-' if stereo else ''}{size}"),
        license="CC-BY-NC-4.0",
    )
