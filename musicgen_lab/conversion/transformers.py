"""Read a checkpoint in transformers' format: `config.json` of type "musicgen" and its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.conversion import text_encoder
from musicgen_lab.conversion.encodec import read_encodec
from musicgen_lab.conversion.parts import (
    UNFIT,
    Parts,
    check_all_read,
    check_count,
    read_json,
    read_tensors,
)
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import TensorReader
from musicgen_lab.models.hub import PART_WEIGHTS

_DECODER = "decoder.model.decoder"
_LAYER_NAMES = {
    "self_out.weight": "self_attn.out_proj.weight",
    "cross_q.weight": "encoder_attn.q_proj.weight",
    "cross_out.weight": "encoder_attn.out_proj.weight",
    "ffn_in.weight": "fc1.weight",
    "ffn_out.weight": "fc2.weight",
    "self_norm.weight": "self_attn_layer_norm.weight",
    "self_norm.bias": "self_attn_layer_norm.bias",
    "cross_norm.weight": "encoder_attn_layer_norm.weight",
    "cross_norm.bias": "encoder_attn_layer_norm.bias",
    "ffn_norm.weight": "final_layer_norm.weight",
    "ffn_norm.bias": "final_layer_norm.bias",
}
_PARTS = ("text_encoder.", "audio_encoder.")
INDEX_BYTES_MAX = 10_000_000  # a line for each tensor
_OTHER_KINDS = {"musicgen_melody": "melody"}


def read_transformers(source: Path) -> Parts:
    """Read a `MusicgenForConditionalGeneration` folder.

    Parameters
    ----------
    source : Path

    Raises
    ------
    ModelUnavailable
        When a file is missing or damaged, or the model is of a kind that is not served.
    """
    path = source / "config.json"
    config = read_json(path)
    kind = str(config.get("model_type"))[:40]
    if kind != "musicgen":
        raise ModelUnavailable(
            f"{path} is a {_OTHER_KINDS.get(kind, kind)} model; only text models of type "
            "musicgen are served"
        )
    state, files = _read_weights(source)
    try:
        _refuse_other_kinds(path, config["decoder"])
        architecture = _architecture(config, state)
        tensors = _rename(state, architecture)
        codec = read_encodec(config["audio_encoder"], _strip(state, "audio_encoder."))
    except UNFIT as error:
        raise ModelUnavailable(
            f"{source} does not fit its own configuration: {type(error).__name__}: {error}"
        ) from None
    check_all_read(source, state, ignore=(*_PARTS, f"{_DECODER}.embed_positions."))

    def save_text_encoder(folder: Path) -> None:
        weights = _strip(state, "text_encoder.")
        text_encoder.save_text_encoder(source, config["text_encoder"], weights, folder)

    return Parts(architecture, tensors, *codec, save_text_encoder, files)


def _read_weights(source: Path) -> tuple[TensorReader, list[Path]]:
    """Read one file or several, safetensors where there are any."""
    for name in PART_WEIGHTS:
        if (source / name).is_file():
            return TensorReader(read_tensors(source / name)), [source / name]
        index = source / f"{name}.index.json"
        if index.is_file():
            try:
                shards = read_json(index, INDEX_BYTES_MAX)["weight_map"].values()
                files = [source / Path(shard).name for shard in sorted(set(shards))]
            except (KeyError, AttributeError, TypeError) as error:
                raise ModelUnavailable(f"{index} names no files ({error})") from None
            state = {k: v for file in files for k, v in read_tensors(file).items()}
            return TensorReader(state), files
    raise ModelUnavailable(f"{source} has no {' and no '.join(PART_WEIGHTS)}")


def _strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _refuse_other_kinds(path: Path, decoder: dict[str, Any]) -> None:
    wrong = [
        f"{option}={decoder[option]}"
        for option, served in (("activation_function", "gelu"), ("scale_embedding", False))
        if decoder.get(option, served) != served
    ]
    if wrong:
        raise ModelUnavailable(f"{path} is of a kind that is not served: {', '.join(wrong)}")


def _architecture(config: dict[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    decoder, codec = config["decoder"], config["audio_encoder"]
    channels = check_count("audio_channels", decoder.get("audio_channels", 1))
    codebooks = check_count("num_codebooks", decoder.get("num_codebooks", 4))
    return {
        "dim": decoder["hidden_size"],
        "layers": check_count("num_hidden_layers", decoder["num_hidden_layers"]),
        "heads": decoder["num_attention_heads"],
        "ffn_dim": decoder["ffn_dim"],
        "text_dim": config["text_encoder"]["d_model"],
        "card": decoder["vocab_size"],
        "delays": [k // channels for k in range(codebooks)],
        "bias_proj": "decoder.lm_heads.0.bias" in state,
        "channels": channels,
        "sample_rate": codec["sampling_rate"],
        "frame_rate": codec["sampling_rate"] / math.prod(codec["upsampling_ratios"]),
    }


def _rename(state: Mapping[str, Tensor], architecture: dict[str, Any]) -> dict[str, Tensor]:
    """Name the LM's tensors as `lm.safetensors` does."""
    codebooks = len(architecture["delays"])
    embeddings = [state[f"{_DECODER}.embed_tokens.{k}.weight"] for k in range(codebooks)]
    tensors = {
        "embedding": torch.stack(embeddings),
        "out_norm.weight": state[f"{_DECODER}.layer_norm.weight"],
        "out_norm.bias": state[f"{_DECODER}.layer_norm.bias"],
        "heads.weight": torch.cat(
            [state[f"decoder.lm_heads.{k}.weight"] for k in range(codebooks)]
        ),
    }
    if architecture["bias_proj"]:
        biases = [state[f"decoder.lm_heads.{k}.bias"] for k in range(codebooks)]
        tensors["heads.bias"] = torch.cat(biases)
    if "enc_to_dec_proj.weight" in state:
        tensors["text_projection.weight"] = state["enc_to_dec_proj.weight"]
        tensors["text_projection.bias"] = state["enc_to_dec_proj.bias"]
    else:  # a text encoder as wide as the decoder is not projected
        dim = tensors["embedding"].shape[-1]
        tensors["text_projection.weight"] = torch.eye(dim)
        tensors["text_projection.bias"] = torch.zeros(dim)
    for index in range(architecture["layers"]):
        theirs = f"{_DECODER}.layers.{index}"
        for ours, name in _LAYER_NAMES.items():
            tensors[f"layers.{index}.{ours}"] = state[f"{theirs}.{name}"]
        for ours, block, parts in (
            ("self_qkv", "self_attn", "qkv"),
            ("cross_kv", "encoder_attn", "kv"),
        ):
            weights = [state[f"{theirs}.{block}.{part}_proj.weight"] for part in parts]
            tensors[f"layers.{index}.{ours}.weight"] = torch.cat(weights)
    return tensors
