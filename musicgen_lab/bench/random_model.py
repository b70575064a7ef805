"""A model folder of a released size with random weights; speed does not depend on their values."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path

import torch
from safetensors.torch import save_file

from musicgen_lab.models.config import (
    CODEC_FOLDER,
    LM_FILE,
    TEXT_ENCODER_FOLDER,
    WEIGHTS_FILE,
    Source,
    expected_shapes,
)
from musicgen_lab.models.library_noise import quiet
from musicgen_lab.models.released import T5_BASE_WIDTH, released_config

_DRAWN = 1_000_003  # numbers; a prime, so that no two rows of a weight are equal


def write_random_model(folder: Path, size: str) -> Path:
    """Write a model folder of a released size, float16, with random weights.

    The text encoder has T5-base's width but one layer: it runs once per prompt.

    Parameters
    ----------
    folder : Path
    size : {"small", "medium", "large"}

    Returns
    -------
    Path
        The folder.
    """
    config = released_config(size).model_copy(
        update={"source": Source(name=f"random {size}"), "license": "none"}
    )
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.ones(shape) if "norm.weight" in name else _random(shape, generator)).half()
        for name, shape in expected_shapes(config).items()
    }
    (folder / CODEC_FOLDER).mkdir(parents=True)
    save_file(tensors, folder / LM_FILE)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _write_codec(folder / CODEC_FOLDER)
        _write_text_encoder(folder / TEXT_ENCODER_FOLDER)
    config.save(folder)
    return folder


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return random weights, which repeat: drawing billions takes longer than the benchmark."""
    count = math.prod(shape)
    drawn = torch.randn(min(count, _DRAWN), generator=generator).div_(math.sqrt(shape[-1]))
    return drawn.repeat(math.ceil(count / len(drawn)))[:count].view(shape)


def _write_codec(folder: Path) -> None:
    """Write an EnCodec of the released architecture: 32 kHz mono, 50 frames a second."""
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        sampling_rate=32_000,
        hidden_size=128,
        num_filters=64,
        upsampling_ratios=[8, 5, 4, 4],
        use_causal_conv=False,
        use_conv_shortcut=False,
        codebook_size=2048,
        target_bandwidths=[2.2],
    )
    model = EncodecModel(config)
    save_file(model.state_dict(), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    described = {"architectures": ["EncodecModel"], **config.to_dict()}
    (folder / "config.json").write_text(json.dumps(described, indent=2))


def _write_text_encoder(folder: Path) -> None:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = string.ascii_letters + string.digits + string.punctuation
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(letter, -4.0) for letter in letters]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder)
    config = T5Config(vocab_size=len(vocabulary), d_model=T5_BASE_WIDTH, num_layers=1)
    T5EncoderModel(config).save_pretrained(folder)
