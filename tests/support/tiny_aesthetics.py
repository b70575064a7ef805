"""An Audiobox Aesthetics model in small, with random weights, in the format that the Hub gives."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

SMALL = {
    "encoder_layers": 1,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 16,
    "encoder_attention_heads": 2,
    "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    "conv_pos_groups": 2,
}


@contextmanager
def small_encoder():
    """Let the package build a small encoder: its size is fixed there and in no checkpoint."""
    from audiobox_aesthetics.model import aes

    config = aes.WavLMConfig(vars(aes.DEFAULT_AUDIO_CFG) | SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aes, "DEFAULT_AUDIO_CFG", config)
        yield


def make_aesthetics(folder):
    """Write the model into a folder and return its name; within `small_encoder`."""
    import torch
    from audiobox_aesthetics.model.aes import AesMultiOutput

    torch.manual_seed(0)
    AesMultiOutput(
        proj_num_layer=3,
        proj_ln=True,
        nth_layer=2,
        target_transform={
            "CE": {"mean": 5.1, "std": 1.9},
            "CU": {"mean": 5.7, "std": 1.8},
            "PC": {"mean": 3.2, "std": 1.9},
            "PQ": {"mean": 6.6, "std": 1.5},
        },
    ).save_pretrained(folder)
    return str(folder)
