"""Random MusicGen checkpoints in audiocraft's format: real architectures of any shape, small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from musicgen_lab.demo.architecture import (
    CODEC_CONFIG,
    LM_CONFIG,
    build_codec,
    build_lm,
    save_audiocraft,
)
from musicgen_lab.demo.text import build_text_encoder
from musicgen_lab.engine.config import TEXT_ENCODER_FOLDER
from musicgen_lab.engine.quiet import quiet

RATIOS = [8, 5, 4, 4]  # the released codec's strides


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
    lm_config = _merge(
        LM_CONFIG,
        channels=channels,
        interleave_stereo_codebooks={"use": stereo, "per_timestep": False},
        transformer_lm={
            "n_q": n_q * channels,
            "card": card,
            "dim": dim,
            "num_heads": heads,
            "num_layers": layers,
            "bias_proj": bias_proj,
        },
        codebooks_pattern={
            "delay": {"delays": [delay for delay in range(n_q) for _ in range(channels)]}
        },
    )
    codec_config = _merge(
        CODEC_CONFIG,
        seanet={
            "dimension": 16,
            "n_filters": 4,
            "n_residual_layers": 1,
            "ratios": RATIOS,
            "norm": "weight_norm",
            "lstm": codec_lstm,
        },
        rvq={"n_q": n_q, "bins": card},
    )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = build_codec(codec_config)
        _make_audible(codec)
        save_audiocraft(folder / "compression_state_dict.bin", codec_config, codec)
        text_encoder = build_text_encoder(folder / TEXT_ENCODER_FOLDER, steps=0)
        lm = build_lm(text_encoder, lm_config)
        for linear in lm.linears:  # wide logits, so that temperature, top_k and cfg_coef matter
            linear.weight.data *= 4.0
        save_audiocraft(folder / "state_dict.bin", lm_config, lm)
    return folder


def _merge(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    merged = OmegaConf.to_container(OmegaConf.merge(config, changes))
    assert isinstance(merged, dict)
    return {str(name): value for name, value in merged.items()}


@torch.no_grad()
def _make_audible(codec: Any) -> None:
    """Scale random weights so that decoded audio has a level like music's, about -20 dBFS."""
    for level, layer in enumerate(codec.quantizer.vq.layers):
        codes = layer._codebook.embed
        codes.normal_(std=0.5**level)  # each codebook refines the one before it
        layer._codebook.embed_avg.copy_(codes)
    for name, parameter in codec.decoder.named_parameters():
        if "bias" in name:
            parameter.zero_()  # else the sound would be the biases', the same for every code
    codec.eval()
    codes = torch.randint(0, codec.cardinality, (1, codec.num_codebooks, 250))  # 5 s
    codec.decoder.model[-1].conv.conv.weight_g *= 0.1 / codec.decode(codes).std()
