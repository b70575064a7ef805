"""Random MusicGen checkpoints in audiocraft's format: real architectures of any shape, small.

They are written without audiocraft, so that only the tests that compare with it need it; it loads
them strictly, every tensor by its name and shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import T5EncoderModel

from musicgen_lab.conversion.audiocraft import name_as_audiocraft
from musicgen_lab.demo.architecture import CODEC_CONFIG, LM_CONFIG, TEXT_DIM
from musicgen_lab.demo.text import build_text_encoder
from musicgen_lab.models.config import (
    TEXT_ENCODER_FOLDER,
    ModelConfig,
    Source,
    expected_shapes,
)
from musicgen_lab.models.library_noise import quiet

RATIOS = [8, 5, 4, 4]  # the released codec's strides
DIMENSION, FILTERS = 16, 4
ENCODER_GAIN = 150.0  # so that different sounds have different codes
TEXT = "condition_provider.conditioners.description.t5"


def build_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    dim: int = 64,
    layers: int = 2,
    heads: int = 4,
    card: int = 256,
    n_q: int = 4,
    stereo: bool = False,
    bias_proj: bool = False,
    codec_lstm: int = 2,
) -> Path:
    """Write an untrained checkpoint: `state_dict.bin`, `compression_state_dict.bin`, a T5."""
    channels = 2 if stereo else 1
    delays = [delay for delay in range(n_q) for _ in range(channels)]
    lm_config = deepcopy(LM_CONFIG)
    lm_config["channels"] = channels
    lm_config["interleave_stereo_codebooks"]["use"] = stereo
    lm_config["codebooks_pattern"]["delay"]["delays"] = delays
    lm_config["transformer_lm"] |= {
        "n_q": n_q * channels,
        "card": card,
        "dim": dim,
        "num_heads": heads,
        "num_layers": layers,
        "bias_proj": bias_proj,
    }
    codec_config = deepcopy(CODEC_CONFIG)
    codec_config["seanet"] |= {
        "dimension": DIMENSION,
        "n_filters": FILTERS,
        "n_residual_layers": 1,
        "ratios": RATIOS,
        "norm": "weight_norm",
        "lstm": codec_lstm,
    }
    codec_config["rvq"] |= {"n_q": n_q, "bins": card}
    model = ModelConfig(
        dim=dim,
        layers=layers,
        heads=heads,
        ffn_dim=4 * dim,
        text_dim=TEXT_DIM,
        card=card,
        delays=delays,
        bias_proj=bias_proj,
        channels=channels,
        sample_rate=32_000,
        frame_rate=50,
        dtype="float16",
        source=Source(name="random"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = dict(_codec_state(codec_lstm, n_q, card))
        _save(folder / "compression_state_dict.bin", codec_config, codec)
        text_encoder = build_text_encoder(folder / TEXT_ENCODER_FOLDER, steps=0)
        _save(folder / "state_dict.bin", lm_config, _lm_state(model, text_encoder))
    return folder


def _save(path: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    torch.save({"xp.cfg": yaml.safe_dump(config), "best_state": half}, path)


def _lm_state(model: ModelConfig, text_encoder: Path) -> dict[str, Tensor]:
    tensors = {}
    for name, shape in expected_shapes(model).items():
        if "norm.weight" in name:
            tensors[name] = torch.ones(shape)
        elif "bias" in name:
            tensors[name] = torch.zeros(shape)
        else:
            tensors[name] = torch.randn(shape) / math.sqrt(shape[-1])
    tensors["heads.weight"] *= 4  # wide logits, so that temperature, top_k and cfg_coef matter
    state = name_as_audiocraft(tensors, model)
    nested = {"self_attn.": "self_attn.mha.", "cross_attention.": "cross_attention.mha."}
    for ours, theirs in nested.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    t5 = T5EncoderModel.from_pretrained(text_encoder).state_dict()
    return state | {f"{TEXT}.{name}": tensor for name, tensor in t5.items()}


def _codec_state(lstm: int, n_q: int, card: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of audiocraft's `EncodecModel`: SEANet with residual quantisation.

    The decoder has no biases, else the sound would be theirs, the same for every code, and its last
    layer makes it as loud as music, about -20 dBFS.
    """
    widest = FILTERS * 2 ** len(RATIOS)
    index, width = 0, FILTERS
    yield from _convolution("encoder.model.0.conv.conv", (width, 1, 7))
    for ratio in reversed(RATIOS):
        yield from _residual(f"encoder.model.{index + 1}", width)
        index += 3
        yield from _convolution(f"encoder.model.{index}.conv.conv", (2 * width, width, 2 * ratio))
        width *= 2
    if lstm:
        index += 1
        yield from _lstm(f"encoder.model.{index}", widest, lstm)
    last = f"encoder.model.{index + 2}.conv.conv"
    yield from _convolution(last, (DIMENSION, widest, 7), gain=ENCODER_GAIN)

    index = 0
    yield from _convolution("decoder.model.0.conv.conv", (widest, DIMENSION, 7))
    if lstm:
        index += 1
        yield from _lstm(f"decoder.model.{index}", widest, lstm)
    for ratio in RATIOS:
        index += 2
        name = f"decoder.model.{index}.convtr.convtr"
        yield from _convolution(name, (width, width // 2, 2 * ratio), transposed=True)
        width //= 2
        index += 1
        yield from _residual(f"decoder.model.{index}", width)
    yield from _convolution(f"decoder.model.{index + 2}.conv.conv", (1, width, 7), gain=18.0)

    for level in range(n_q):
        codebook = f"quantizer.vq.layers.{level}._codebook"
        codes = 0.5**level * torch.randn(card, DIMENSION)  # each refines the one before it
        yield f"{codebook}.inited", torch.ones(1)
        yield f"{codebook}.cluster_size", torch.zeros(card)
        yield f"{codebook}.embed", codes
        yield f"{codebook}.embed_avg", codes


def _convolution(
    name: str, shape: tuple[int, int, int], *, transposed: bool = False, gain: float = 1.0
) -> Iterator[tuple[str, Tensor]]:
    """Yield a convolution under torch's `weight_norm`, with torch's initialisation."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    direction = torch.empty(shape).uniform_(-bound, bound)
    yield f"{name}.bias", torch.zeros(shape[1] if transposed else shape[0])
    yield f"{name}.weight_g", gain * direction.norm(dim=(1, 2), keepdim=True)
    yield f"{name}.weight_v", direction


def _residual(name: str, width: int) -> Iterator[tuple[str, Tensor]]:
    yield from _convolution(f"{name}.block.1.conv.conv", (width // 2, width, 3))
    yield from _convolution(f"{name}.block.3.conv.conv", (width, width // 2, 1))


def _lstm(name: str, width: int, layers: int) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in nn.LSTM(width, width, layers).state_dict().items():
        yield f"{name}.lstm.{key}", torch.zeros_like(tensor) if "bias" in key else tensor
