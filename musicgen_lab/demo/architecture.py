"""The sizes of the demo model's three parts, as audiocraft and transformers build them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from musicgen_lab.demo.instruments import SAMPLE_RATE
from musicgen_lab.models.library_noise import quiet
from musicgen_lab.reference.models import load_audiocraft, register_text_encoder

CODEBOOKS, CARD = 4, 512

LM_DIM, LM_LAYERS, LM_HEADS = 160, 5, 4
TEXT_DIM, TEXT_LAYERS = 96, 1

CODEC_CONFIG: dict[str, Any] = {
    "device": "cpu",
    "compression_model": "encodec",
    "encodec": {
        "autoencoder": "seanet",
        "quantizer": "rvq",
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "causal": False,
        "renormalize": False,
    },
    "seanet": {
        "dimension": 128,
        "channels": 1,
        "causal": False,
        "n_filters": 8,
        # Strides that halve the width and double the rate lose nothing, so that the codec can start
        # as an exact transform (`codec_transform`); the product of the strides is 640.
        "n_residual_layers": 0,
        "ratios": [2, 2, 2, 2, 40],
        "activation": "ELU",
        "activation_params": {"alpha": 1.0},
        "norm": "none",
        "norm_params": {},
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 7,
        "dilation_base": 2,
        "pad_mode": "reflect",
        "true_skip": True,
        "compress": 2,
        "lstm": 0,
        "disable_norm_outer_blocks": 0,
        "encoder": {},
        "decoder": {
            "trim_right_ratio": 1.0,
            "final_activation": None,
            "final_activation_params": None,
        },
    },
    "rvq": {"n_q": CODEBOOKS, "bins": CARD, "q_dropout": False, "kmeans_init": False},
}

LM_CONFIG: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "sample_rate": SAMPLE_RATE,
    "channels": 1,
    "solver": "musicgen",
    "dataset": {"segment_duration": 30},
    "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
    "lm_model": "transformer_lm",
    "transformer_lm": {
        "n_q": CODEBOOKS,
        "card": CARD,
        "dim": LM_DIM,
        "num_heads": LM_HEADS,
        "num_layers": LM_LAYERS,
        "hidden_scale": 4,
        "dropout": 0.0,
        "emb_lr": None,
        "activation": "gelu",
        "norm_first": True,
        "bias_ff": False,
        "bias_attn": False,
        "bias_proj": False,
        "causal": True,
        "custom": False,
        "memory_efficient": False,
        "attention_as_float32": False,
        "layer_scale": None,
        "positional_embedding": "sin",
        # Close together, so that they determine the position in a beat of any tempo.
        "max_period": 200,
        "xpos": False,
        "checkpointing": "none",
        "weight_init": "gaussian",
        "depthwise_init": "current",
        "zero_bias_init": True,
        "norm": "layer_norm",
        "cross_attention": True,
        "qk_layer_norm": False,
        "qk_layer_norm_cross": False,
        "attention_dropout": None,
        "kv_repeat": 1,
        "past_context": None,
        "two_step_cfg": False,
    },
    "codebooks_pattern": {
        "modeling": "delay",
        "delay": {
            "delays": list(range(CODEBOOKS)),
            "flatten_first": 0,
            "empty_initial": 0,
        },
    },
    "classifier_free_guidance": {"training_dropout": 0.15, "inference_coef": 3.0},
    "attribute_dropout": {},
    "fuser": {
        "cross_attention_pos_emb": False,
        "cross_attention_pos_emb_scale": 1,
        "sum": [],
        "prepend": [],
        "cross": ["description"],
        "input_interpolate": [],
    },
    "conditioners": {
        "description": {
            "model": "t5",
            "t5": {
                "name": "t5-base",
                "finetune": True,
                "word_dropout": 0.0,
                "normalize_text": False,
            },
        }
    },
}


def build_codec() -> Any:
    """Build an untrained codec: audiocraft's `EncodecModel`."""
    load_audiocraft()
    with quiet():
        from audiocraft.models import builders
        from omegaconf import OmegaConf

        return builders.get_compression_model(OmegaConf.create(CODEC_CONFIG))


def build_lm(text_encoder: Path) -> Any:
    """Build an untrained language model: audiocraft's `LMModel`, with a T5 that is trained too.

    Parameters
    ----------
    text_encoder : Path
        Folder of the T5 encoder and its tokenizer, from `text.build_text_encoder`.
    """
    load_audiocraft()
    with quiet():
        from audiocraft.models import builders
        from omegaconf import OmegaConf

        config = OmegaConf.create(LM_CONFIG)
        config.conditioners.description.t5.name = register_text_encoder(text_encoder)
        return builders.get_lm_model(config)


def save_audiocraft(path: Path, config: dict[str, Any], model: nn.Module) -> None:
    """Write a model as audiocraft publishes them: its configuration and its weights in 16 bits."""
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"xp.cfg": yaml.safe_dump(config), "best_state": state}, path)
