"""Read a checkpoint in audiocraft's own format, without audiocraft."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.conversion import text_encoder
from musicgen_lab.conversion.encodec import read_encodec, read_seanet
from musicgen_lab.conversion.parts import (
    UNFIT,
    Parts,
    check_all_read,
    check_count,
    check_tensors,
    describe_source,
    read_json,
    read_pickle,
    read_tensors,
)
from musicgen_lab.conversion.xp_config import SEGMENT, read_xp_config
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.models.checkpoint import TensorReader
from musicgen_lab.models.config import (
    CODEC_FOLDER,
    CONFIG_FILE,
    TEXT_ENCODER_FOLDER,
    ModelConfig,
    Source,
)
from musicgen_lab.models.hub import PART_WEIGHTS, download_part, find_weights
from musicgen_lab.models.locate import AUDIOCRAFT_FILES

LM_CHECKPOINT, CODEC_CHECKPOINT = AUDIOCRAFT_FILES

_TEXT = "condition_provider.conditioners.description"
_LAYER_NAMES = {
    "self_qkv.weight": "self_attn.in_proj_weight",
    "self_out.weight": "self_attn.out_proj.weight",
    "cross_out.weight": "cross_attention.out_proj.weight",
    "ffn_in.weight": "linear1.weight",
    "ffn_out.weight": "linear2.weight",
    "self_norm.weight": "norm1.weight",
    "self_norm.bias": "norm1.bias",
    "cross_norm.weight": "norm_cross.weight",
    "cross_norm.bias": "norm_cross.bias",
    "ffn_norm.weight": "norm2.weight",
    "ffn_norm.bias": "norm2.bias",
}
_ONLY_SERVED = {  # option of `transformer_lm`: the one value that this engine computes
    "norm_first": True,
    "norm": "layer_norm",
    "activation": "gelu",
    "bias_ff": False,
    "bias_attn": False,
    "causal": True,
    "positional_embedding": "sin",
    "layer_scale": None,
    "qk_layer_norm": False,
    "qk_layer_norm_cross": False,
    "kv_repeat": 1,
    "past_context": None,
}
_AUDIOCRAFT_DEFAULTS = {"norm_first": False, "bias_ff": True, "bias_attn": True, "causal": False}


def read_audiocraft(source: Path) -> Parts:
    """Read `state_dict.bin` and `compression_state_dict.bin`.

    Parameters
    ----------
    source : Path
        Where it has a folder `text_encoder/` or `codec/` in transformers' format, that is used
        instead of the one that the checkpoint names.

    Raises
    ------
    ModelUnavailable
        When a file is missing or damaged, or the model is of a kind that is not served.
    """
    lm_path, codec_path = source / LM_CHECKPOINT, source / CODEC_CHECKPOINT
    config, state = _open(lm_path)
    try:
        _refuse_other_kinds(lm_path, config)
        codec_config, codec_tensors, codec_source = _read_codec(source)
        architecture = _architecture(config, state, codec_config)
        tensors = _rename(state, architecture)
        t5_name = str(config["conditioners"]["description"]["t5"]["name"])
    except UNFIT as error:
        raise ModelUnavailable(
            f"{source} does not fit its own configuration: {type(error).__name__}: {error}"
        ) from None
    check_all_read(lm_path, state, ignore=(f"{_TEXT}.t5.",))

    own_t5 = {
        name.removeprefix(f"{_TEXT}.t5."): tensor.float()
        for name, tensor in state.items()
        if name.startswith(f"{_TEXT}.t5.")
    }

    sources = {} if codec_source is None else {CODEC_FOLDER: codec_source}
    files = [lm_path, codec_path]
    folder = source / TEXT_ENCODER_FOLDER
    if not folder.is_dir():
        folder, revision = download_part(t5_name, own_folder=folder, tokenizer=True)
        sources[TEXT_ENCODER_FOLDER] = describe_source(t5_name, revision, find_weights(folder))
    t5_config = read_json(folder / CONFIG_FILE)
    t5_state = own_t5 or _read_part(folder)

    def save_text_encoder(target: Path) -> None:
        text_encoder.save_text_encoder(folder, t5_config, t5_state, target)

    return Parts(
        architecture, tensors, codec_config, codec_tensors, save_text_encoder, files, sources
    )


def _read_part(folder: Path) -> dict[str, Tensor]:
    weights = find_weights(folder)
    if not weights:
        raise ModelUnavailable(f"{folder} has no {' and no '.join(PART_WEIGHTS)}")
    return read_tensors(weights[0])


def _open(path: Path) -> tuple[dict[str, Any], TensorReader]:
    package = read_pickle(path)
    try:
        config, state = read_xp_config(package["xp.cfg"]), package["best_state"]
    except (KeyError, ValueError) as error:
        names = ", ".join(sorted(map(str, package))[:5])[:200]
        reason = f"it holds {names}" if isinstance(error, KeyError) else str(error)
        raise ModelUnavailable(
            f"{path} is not an export of audiocraft's, which holds xp.cfg and best_state: {reason}"
        ) from None
    return config, TensorReader(check_tensors(path, state))


def _refuse_other_kinds(path: Path, config: dict[str, Any]) -> None:
    """Reject options that this engine would compute wrongly."""
    kinds = sorted(
        str(conditioner.get("model"))
        for name, conditioner in config["conditioners"].items()
        if name != "args"
    )
    if kinds != ["t5"]:
        named = {"chroma_stem": "melody", "style": "style", "clap": "CLAP"}
        kind = next((named[kind] for kind in kinds if kind in named), ", ".join(kinds))
        raise ModelUnavailable(
            f"{path} is a {kind} model; only text models are served (small, medium, large, stereo)"
        )
    lm = {**_AUDIOCRAFT_DEFAULTS, **config["transformer_lm"]}
    wrong = [
        f"{option}={lm[option]}"
        for option, served in _ONLY_SERVED.items()
        if lm.get(option, served) != served
    ]
    if config.get("lm_model", "transformer_lm") != "transformer_lm":
        wrong.append(f"lm_model={config['lm_model']}")
    pattern = config["codebooks_pattern"]
    if pattern["modeling"] != "delay":
        wrong.append(f"codebooks_pattern={pattern['modeling']}")
    delay = pattern.get("delay") or {}
    wrong += [f"{o}={delay[o]}" for o in ("flatten_first", "empty_initial") if delay.get(o)]
    stereo = config.get("interleave_stereo_codebooks") or {}
    if stereo.get("use") and stereo.get("per_timestep"):
        wrong.append("interleave_stereo_codebooks.per_timestep=True")
    fuser = config["fuser"]
    if list(fuser.get("cross") or []) != ["description"] or any(
        fuser.get(method) for method in ("sum", "prepend", "input_interpolate")
    ):
        wrong.append("a fuser other than cross-attention to the description")
    if fuser.get("cross_attention_pos_emb"):
        wrong.append("cross_attention_pos_emb=True")
    if config["conditioners"]["description"]["t5"].get("normalize_text"):
        wrong.append("normalize_text=True")
    segment_s = config["dataset"][SEGMENT]
    if segment_s not in (None, WINDOW_S):  # what is a long clip, and its seams, depend on it
        wrong.append(f"dataset.{SEGMENT}={segment_s}, not {WINDOW_S:g}")
    if wrong:
        raise ModelUnavailable(f"{path} is of a kind that is not served: {', '.join(wrong)}")


def _architecture(
    config: dict[str, Any], state: Mapping[str, Tensor], codec_config: dict[str, Any]
) -> dict[str, Any]:
    lm = config["transformer_lm"]
    stereo = bool((config.get("interleave_stereo_codebooks") or {}).get("use"))
    sample_rate = int(codec_config["sampling_rate"])
    return {
        "dim": lm["dim"],
        "layers": check_count("num_layers", lm["num_layers"]),
        "heads": lm["num_heads"],
        "ffn_dim": int(lm.get("hidden_scale", 4) * lm["dim"]),
        "text_dim": state[f"{_TEXT}.output_proj.weight"].shape[1],
        "card": lm["card"],
        "delays": (config["codebooks_pattern"].get("delay") or {}).get("delays")
        or list(range(check_count("n_q", lm["n_q"]))),
        "bias_proj": bool(lm.get("bias_proj", True)),
        "max_period": lm.get("max_period", 10_000.0),
        "positional_scale": lm.get("positional_scale", 1.0),
        "channels": 2 if stereo else int(codec_config["audio_channels"]),
        "sample_rate": sample_rate,
        "frame_rate": sample_rate / math.prod(codec_config["upsampling_ratios"]),
    }


def _rename(state: Mapping[str, Tensor], architecture: dict[str, Any]) -> dict[str, Tensor]:
    """Name the LM's tensors as `lm.safetensors` does."""
    codebooks, dim = len(architecture["delays"]), architecture["dim"]
    tensors = {
        "embedding": torch.stack([state[f"emb.{k}.weight"] for k in range(codebooks)]),
        "text_projection.weight": state[f"{_TEXT}.output_proj.weight"],
        "text_projection.bias": state[f"{_TEXT}.output_proj.bias"],
        "out_norm.weight": state["out_norm.weight"],
        "out_norm.bias": state["out_norm.bias"],
        "heads.weight": torch.cat([state[f"linears.{k}.weight"] for k in range(codebooks)]),
    }
    if architecture["bias_proj"]:
        tensors["heads.bias"] = torch.cat([state[f"linears.{k}.bias"] for k in range(codebooks)])
    for index in range(architecture["layers"]):
        theirs = f"transformer.layers.{index}"
        for ours, name in _LAYER_NAMES.items():
            # torch's own attention module keeps its weights one level further down.
            nested = name.replace("self_attn.", "self_attn.mha.")
            nested = nested.replace("cross_attention.", "cross_attention.mha.")
            stored = f"{theirs}.{name}" if f"{theirs}.{name}" in state else f"{theirs}.{nested}"
            tensors[f"layers.{index}.{ours}"] = state[stored]
        cross = f"{theirs}.cross_attention.in_proj_weight"
        if cross not in state:
            cross = f"{theirs}.cross_attention.mha.in_proj_weight"
        tensors[f"layers.{index}.cross_q.weight"] = state[cross][:dim]
        tensors[f"layers.{index}.cross_kv.weight"] = state[cross][dim:]
    return tensors


def name_as_audiocraft(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Name the tensors of `lm.safetensors` as audiocraft's `LMModel` does: the way back.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    config : ModelConfig

    Returns
    -------
    dict of str to Tensor
        For `LMModel.load_state_dict`.
    """
    state = {
        f"{_TEXT}.output_proj.weight": tensors["text_projection.weight"],
        f"{_TEXT}.output_proj.bias": tensors["text_projection.bias"],
        "out_norm.weight": tensors["out_norm.weight"],
        "out_norm.bias": tensors["out_norm.bias"],
    }
    tables = {"emb": tensors["embedding"]}
    tables["linears"] = tensors["heads.weight"].view(config.codebooks, config.card, config.dim)
    for table, stacked in tables.items():
        state |= {f"{table}.{k}.weight": weight for k, weight in enumerate(stacked)}
    if config.bias_proj:
        biases = tensors["heads.bias"].view(config.codebooks, config.card)
        state |= {f"linears.{k}.bias": bias for k, bias in enumerate(biases)}
    for index in range(config.layers):
        ours, theirs = f"layers.{index}", f"transformer.layers.{index}"
        state |= {
            f"{theirs}.{name}": tensors[f"{ours}.{our}"] for our, name in _LAYER_NAMES.items()
        }
        cross = [tensors[f"{ours}.{part}.weight"] for part in ("cross_q", "cross_kv")]
        state[f"{theirs}.cross_attention.in_proj_weight"] = torch.cat(cross)
    return state


def _read_codec(source: Path) -> tuple[dict[str, Any], dict[str, Tensor], Source | None]:
    """Read the codec as configuration and weights of `EncodecModel`.

    The last value says where it came from, where the checkpoint only names it.
    """
    path = source / CODEC_CHECKPOINT
    package = read_pickle(path)
    if "pretrained" in package:
        name, folder, described = str(package["pretrained"]), source / CODEC_FOLDER, None
        if not folder.is_dir():
            folder, revision = download_part(name, own_folder=folder)
            described = describe_source(name, revision, find_weights(folder))
        return *read_encodec(read_json(folder / CONFIG_FILE), _read_part(folder)), described
    config, state = _open(path)
    return *read_seanet(path, config, state), None
