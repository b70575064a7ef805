"""Set the codec's weights to a known transform, so that it works before it is trained.

The encoder becomes a modified discrete cosine transform of blocks of 40 samples, of which it keeps
the lowest 16 of 40 bands (0 to 6.4 kHz), gathers the 16 blocks of a frame, and projects their 256
numbers on the 128 principal components of music. The codebooks come from k-means, each on what the
one before left over. The decoder starts as the way back. All of it fits SEANet's own layers: ELU is
as good as linear for small numbers, so the signal is scaled down at the entrance.

The encoder stays as it is. Its codes can be learnt by the language model at once, while the decoder
is trained to make the best of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.demo.architecture import CARD, CODEBOOKS

BLOCK = 40  # samples; the codec's largest stride
BANDS = 16  # of 40 that are kept
ENCODER_SCALE, DECODER_SCALE = 0.02, 0.05  # small enough for ELU to be linear
EMPHASIS = 0.35  # how much weak bands are raised: 0 not at all, 0.5 to the level of strong ones
KMEANS_ROUNDS = 12


def mdct_basis() -> Tensor:
    """Return the windowed cosines of the lowest bands: (bands, 2 * block)."""
    n = torch.arange(2 * BLOCK, dtype=torch.float64)
    k = torch.arange(BANDS, dtype=torch.float64)[:, None]
    window = torch.sin(math.pi / (2 * BLOCK) * (n + 0.5))
    cosines = torch.cos(math.pi / BLOCK * (n + 0.5 + BLOCK / 2) * (k + 0.5))
    return (math.sqrt(2 / BLOCK) * window * cosines).float()


@torch.no_grad()
def set_encoder(codec: Any) -> None:
    """Set all layers of the encoder but the last, which `set_projection` sets."""
    first, *downs, _ = _convolutions(codec.encoder)
    _clear(first)
    first.weight[0, 0, first.weight.shape[-1] // 2] = ENCODER_SCALE
    _clear(downs[0])
    downs[0].weight[:, 0] = mdct_basis()
    for down in downs[1:]:  # two neighbours in time become neighbours in channels
        _clear(down)
        width = down.weight.shape[1]
        down.weight[:width, :, 1] = torch.eye(width)
        down.weight[width:, :, 2] = torch.eye(width)


@torch.no_grad()
def coefficients(codec: Any, sound: Tensor) -> Tensor:
    """Return what comes before the encoder's last layer: (B, 1, n) to (frames of all, 256)."""
    return codec.encoder.model[:-1](sound).transpose(1, 2).flatten(0, 1) / ENCODER_SCALE  # type: ignore[no-any-return]


@torch.no_grad()
def set_projection(codec: Any, frames: Tensor) -> None:
    """Set the encoder's last layer and the decoder's first to principal components and back.

    Parameters
    ----------
    codec : audiocraft.models.EncodecModel
    frames : Tensor
        (N, 256) of `coefficients`.
    """
    energy = frames.pow(2).mean(dim=0).view(-1, BANDS).mean(dim=0) + 1e-5  # (bands,)
    emphasis = (energy / energy.max()).pow(-EMPHASIS).repeat(frames.shape[1] // BANDS)  # (256,)
    raised = frames * emphasis
    _, _, components = torch.linalg.svd(raised.T @ raised)  # (256, 256), strongest first
    last = _convolutions(codec.encoder)[-1]
    _clear(last)
    projection = components[: last.weight.shape[0]]  # (128, 256)
    # No look ahead: a frame's codes do not depend on the notes to come.
    last.weight[:, :, last.weight.shape[-1] // 2] = projection * emphasis / ENCODER_SCALE
    first = _convolutions(codec.decoder)[0]
    middle = first.weight.shape[-1] // 2
    first.weight.mul_(0.02 * DECODER_SCALE)  # neighbouring frames start with a faint voice
    first.bias.zero_()
    first.weight[:, :, middle] = (projection / emphasis).T * DECODER_SCALE


@torch.no_grad()
def project(codec: Any, frames: Tensor) -> Tensor:
    """Run the encoder's last layer on what `coefficients` gave: (N, 256) to (N, D)."""
    weight: Tensor = _convolutions(codec.encoder)[-1].weight
    return frames @ weight[:, :, weight.shape[-1] // 2].T * ENCODER_SCALE


@torch.no_grad()
def set_decoder(codec: Any) -> None:
    """Set all layers of the decoder but the first, which `set_projection` sets."""
    _, *ups, last = _convolutions(codec.decoder)
    for up in ups[:-1]:
        _clear(up)
        width = up.weight.shape[1]
        up.weight[:width, :, 1] = torch.eye(width)
        up.weight[width:, :, 2] = torch.eye(width)
    up = ups[-1]
    up.weight.mul_(0.05)  # the other channels start faint, for training to find a use for them
    up.bias.zero_()
    up.weight[:, 0] = mdct_basis()
    last.weight.mul_(0.05)
    last.bias.zero_()
    last.weight[0, 0] = 0
    last.weight[0, 0, last.weight.shape[-1] // 2] = 1 / DECODER_SCALE


@torch.no_grad()
def set_codebooks(codec: Any, latents: Tensor, generator: torch.Generator) -> list[float]:
    """Set the codebooks by k-means, each on what the one before left over.

    Quiet frames weigh as much as loud ones relative to their energy, or all codes would go to the
    loud ones.

    Parameters
    ----------
    codec : audiocraft.models.EncodecModel
    latents : Tensor
        (N, D) of the encoder.
    generator : torch.Generator

    Returns
    -------
    list of float
        Signal-to-noise ratio in dB after each codebook.
    """
    weights = 1 / (latents.pow(2).sum(dim=1).sqrt() + 0.05)  # (N,)
    residual, ratios_db = latents, []
    for layer in codec.quantizer.vq.layers[:CODEBOOKS]:
        book = layer._codebook
        codes = _kmeans(residual, weights, generator)
        book.embed.copy_(codes)
        book.embed_avg.copy_(codes)
        book.cluster_size.fill_(1.0)
        residual = residual - codes[_nearest(residual, codes)]
        ratio = latents.pow(2).sum(dim=1) / residual.pow(2).sum(dim=1).clamp(min=1e-9)
        ratios_db.append(float(10 * ratio.clamp(1e-3, 1e5).log10().mean()))
    return ratios_db


def _kmeans(points: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return weighted centres: (CARD, D)."""
    drawn = torch.multinomial(weights, CARD, generator=generator)
    codes = points[drawn].clone()
    for _ in range(KMEANS_ROUNDS):
        nearest = _nearest(points, codes)
        mass = torch.zeros(CARD).index_add_(0, nearest, weights)
        total = torch.zeros_like(codes).index_add_(0, nearest, points * weights[:, None])
        empty = mass == 0
        codes = total / mass.clamp(min=1e-9)[:, None]
        if empty.any():
            fresh = torch.multinomial(weights, int(empty.sum()), generator=generator)
            codes[empty] = points[fresh]
    return codes


def _nearest(points: Tensor, codes: Tensor) -> Tensor:
    """Return the nearest code of every point: (N,)."""
    offset = codes.pow(2).sum(dim=1) / 2
    parts = torch.split(points, 20_000)  # type: ignore[no-untyped-call]
    return torch.cat([(part @ codes.T - offset).argmax(dim=1) for part in parts])


def _convolutions(half: Any) -> list[Any]:
    """Return the convolutions of a SEANet encoder or decoder, in order."""
    kinds = torch.nn.Conv1d, torch.nn.ConvTranspose1d
    return [module for module in half.modules() if isinstance(module, kinds)]


def _clear(layer: Any) -> None:
    layer.weight.zero_()
    layer.bias.zero_()
