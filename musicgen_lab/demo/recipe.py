"""Build a tiny MusicGen checkpoint in audiocraft's own format, from a fixed seed and no network.

`python -m musicgen_lab.demo.recipe FOLDER` writes the model folder that this package embeds. It is
a real MusicGen, small: a T5 text encoder, a transformer LM with the delay pattern and
cross-attention, and an EnCodec at 32 kHz with 50 frames a second. It is not trained: what it makes
is noise.
"""

from __future__ import annotations

import string
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import OmegaConf
from torch import nn

from musicgen_lab.engine.convert import prepare
from musicgen_lab.engine.quiet import quiet
from musicgen_lab.engine.reference_models import load_audiocraft, register_text_encoder

SAMPLE_RATE = 32_000  # Hz
RATIOS = [8, 5, 4, 4]  # strides of the codec; their product is 640 samples a frame
TEXT_DIMENSION = 32


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
    codec_filters: int = 4,
    codec_lstm: int = 2,
) -> Path:
    """Write an untrained MusicGen checkpoint into a folder.

    Parameters
    ----------
    folder : Path
        Created where it is missing; gets `state_dict.bin`, `compression_state_dict.bin` and
        `text_encoder/`.
    seed : int
        The weights are the same for the same seed.
    dim, layers, heads : int
        Width, depth and attention heads of the LM.
    card : int
        Codes per codebook.
    n_q : int
        Codebooks per channel.
    stereo : bool
        Two interleaved sets of codebooks, as the released stereo models have.
    bias_proj : bool
        Biases in the LM's output layers.
    codec_filters, codec_lstm : int
        Base width and LSTM layers of the codec.

    Returns
    -------
    Path
        The folder.
    """
    load_audiocraft()
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _build_text_encoder(folder / "text_encoder")
        _build_codec(folder / "compression_state_dict.bin", card, n_q, codec_filters, codec_lstm)
        _build_lm(folder, _lm_config(dim, layers, heads, card, n_q, stereo, bias_proj))
    return folder


def _build_text_encoder(folder: Path) -> None:
    """Save a tiny T5 encoder and its tokenizer, which spells every word letter by letter."""
    alphabet = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(letter, -4.0) for letter in alphabet]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0)
    tokenizer.save_pretrained(folder)
    encoder = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=len(vocabulary),
            d_model=TEXT_DIMENSION,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
        )
    )
    encoder.save_pretrained(folder)


def _build_codec(path: Path, card: int, n_q: int, filters: int, lstm: int) -> None:
    from audiocraft.models import builders

    config = _codec_config(card, n_q, filters, lstm)
    codec = builders.get_compression_model(OmegaConf.create(config))
    _make_audible(codec)
    _save(path, config, codec)


def _build_lm(folder: Path, config: dict[str, Any]) -> None:
    from audiocraft.models import builders

    runnable = OmegaConf.create(config)
    runnable.conditioners.description.t5.name = register_text_encoder(folder / "text_encoder")
    lm = builders.get_lm_model(runnable)
    with torch.no_grad():
        for (
            linear
        ) in lm.linears:  # wide logits give temperature, top_k and cfg_coef something to act on
            linear.weight *= 4.0
    _save(folder / "state_dict.bin", config, lm)


def _make_audible(codec: Any) -> None:
    """Scale random weights so that decoded audio has a level like music's, about -20 dBFS."""
    with torch.no_grad():
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


def _save(path: Path, config: dict[str, Any], model: nn.Module) -> None:
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"xp.cfg": OmegaConf.to_yaml(config), "best_state": state}, path)


def _codec_config(card: int, n_q: int, filters: int, lstm: int) -> dict[str, Any]:
    return {
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
            "dimension": 16,
            "channels": 1,
            "causal": False,
            "n_filters": filters,
            "n_residual_layers": 1,
            "ratios": RATIOS,
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 7,
            "dilation_base": 2,
            "pad_mode": "reflect",
            "true_skip": True,
            "compress": 2,
            "lstm": lstm,
            "disable_norm_outer_blocks": 0,
            "encoder": {},
            "decoder": {
                "trim_right_ratio": 1.0,
                "final_activation": None,
                "final_activation_params": None,
            },
        },
        "rvq": {"n_q": n_q, "bins": card, "q_dropout": False, "kmeans_init": False},
    }


def _lm_config(
    dim: int, layers: int, heads: int, card: int, n_q: int, stereo: bool, bias_proj: bool
) -> dict[str, Any]:
    channels = 2 if stereo else 1
    delays = [delay for delay in range(n_q) for _ in range(channels)]
    return {
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": SAMPLE_RATE,
        "channels": channels,
        "solver": "musicgen",
        "dataset": {"segment_duration": 30},
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "lm_model": "transformer_lm",
        "transformer_lm": {
            "n_q": n_q * channels,
            "card": card,
            "dim": dim,
            "num_heads": heads,
            "num_layers": layers,
            "hidden_scale": 4,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": bias_proj,
            "causal": True,
            "custom": False,
            "memory_efficient": False,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
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
            "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0},
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
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
                    "finetune": False,
                    "word_dropout": 0.0,
                    "normalize_text": False,
                },
            }
        },
    }


def main(out: Path) -> None:
    """Build the embedded model's checkpoint and convert it into a model folder."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build_checkpoint(Path(folder))
        prepare(checkpoint, out, name="musicgen-lab demo, untrained", license="MIT")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
