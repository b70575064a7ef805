"""Read a checkpoint in transformers' format: `config.json` of type "musicgen" and its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.conversion.encodec import rename_weight_norm
from musicgen_lab.conversion.parts import Parts, read_pickle
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint

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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = str(config.get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({error})") from None
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
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelUnavailable(
            f"{source} does not fit its own configuration: {type(error).__name__}: {error}"
        ) from None
    codec_tensors = {
        rename_weight_norm(name): tensor.float()
        for name, tensor in _strip(state, "audio_encoder.").items()
    }

    def save_text_encoder(folder: Path) -> None:
        _save_text_encoder(source, config["text_encoder"], _strip(state, "text_encoder."), folder)

    return Parts(
        architecture, tensors, config["audio_encoder"], codec_tensors, save_text_encoder, files
    )


def _read_weights(source: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Read one file or several, safetensors where there are any."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (source / name).is_file():
            return _read_file(source / name), [source / name]
        index = source / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise ModelUnavailable(f"{index} cannot be read ({error})") from None
            files = [source / Path(str(shard)).name for shard in shards]
            return {k: v for file in files for k, v in _read_file(file).items()}, files
    raise ModelUnavailable(f"{source} has no model.safetensors and no pytorch_model.bin")


def _read_file(path: Path) -> dict[str, Tensor]:
    return dict(Checkpoint(path) if path.suffix == ".safetensors" else read_pickle(path))


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
    channels = int(decoder.get("audio_channels", 1))
    codebooks = int(decoder.get("num_codebooks", 4))
    return {
        "dim": decoder["hidden_size"],
        "layers": decoder["num_hidden_layers"],
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
    codebooks, dim = len(architecture["delays"]), architecture["dim"]
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


def _save_text_encoder(
    source: Path, config: dict[str, Any], state: dict[str, Tensor], folder: Path
) -> None:
    """Write the T5 encoder of the checkpoint, and the tokenizer in its folder."""
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    embedding = state.get("shared.weight", state.get("encoder.embed_tokens.weight"))
    try:
        encoder = T5EncoderModel(T5Config(**config))
        if embedding is None:
            raise KeyError("shared.weight")
        tied = {"shared.weight": embedding, "encoder.embed_tokens.weight": embedding}
        encoder.load_state_dict({name: t.float() for name, t in {**state, **tied}.items()})
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:  # transformers raises nearly every type there is
        reason = " ".join(str(error).split())[:160]
        raise ModelUnavailable(
            f"the text encoder or tokenizer in {source} cannot be read ({reason})"
        ) from None
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
