"""Turn audiocraft's EnCodec into the configuration and weights of transformers' `EncodecModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.conversion.parts import check_all_read
from musicgen_lab.engine.seanet import CodecConfig
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import TensorReader

_NORM_NAMES = {"weight_g": "original0", "weight_v": "original1"}


def read_encodec(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration of a transformers EnCodec, with its sizes, and its weights.

    Whether they fit each other is known when the codec is opened.
    """
    codec = CodecConfig.model_validate(config)
    sizes = {
        "sampling_rate": codec.sampling_rate,
        "audio_channels": codec.audio_channels,
        "upsampling_ratios": codec.upsampling_ratios,
    }
    return {**config, **sizes}, {rename_weight_norm(n): t.float() for n, t in state.items()}


def rename_weight_norm(name: str) -> str:
    """Name the two halves of a normalised weight as torch's parametrisations do."""
    stem, _, last = name.rpartition(".")
    if last in _NORM_NAMES:
        return f"{stem}.parametrizations.weight.{_NORM_NAMES[last]}"
    return name


def read_seanet(
    path: Path, config: dict[str, Any], state: TensorReader
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert audiocraft's SEANet with residual vector quantisation.

    Parameters
    ----------
    path : Path
        Where it came from, for messages.
    config : dict
        Its `xp.cfg`.
    state : TensorReader
        Its `best_state`.

    Raises
    ------
    ModelUnavailable
        When the codec has a part that `EncodecModel` cannot express.
    """
    seanet, rvq = dict(config["seanet"]), config["rvq"]
    encoder = {**seanet, **(seanet.pop("encoder", None) or {})}
    decoder = {**seanet, **(seanet.pop("decoder", None) or {})}
    _refuse_other_kinds(path, config, decoder)
    ratios = [int(ratio) for ratio in decoder["ratios"]]
    sample_rate = int(config["encodec"]["sample_rate"])
    frame_rate = sample_rate / math.prod(ratios)
    bits = math.ceil(math.log2(int(rvq["bins"])))
    described = {
        "sampling_rate": sample_rate,
        "audio_channels": int(decoder["channels"]),
        "hidden_size": int(decoder["dimension"]),
        "num_filters": int(decoder["n_filters"]),
        "num_residual_layers": int(decoder["n_residual_layers"]),
        "upsampling_ratios": ratios,
        "norm_type": "weight_norm",
        "kernel_size": int(decoder["kernel_size"]),
        "last_kernel_size": int(decoder["last_kernel_size"]),
        "residual_kernel_size": int(decoder["residual_kernel_size"]),
        "dilation_growth_rate": int(decoder["dilation_base"]),
        "use_causal_conv": bool(decoder["causal"]),
        "pad_mode": str(decoder["pad_mode"]),
        "compress": int(decoder["compress"]),
        "num_lstm_layers": int(decoder["lstm"]) or 1,
        "trim_right_ratio": float(decoder.get("trim_right_ratio", 1.0)),
        "use_conv_shortcut": not decoder["true_skip"],
        "codebook_size": int(rvq["bins"]),
        # transformers derives the number of codebooks from this, with whole bits, rounding down
        "target_bandwidths": [(int(rvq["n_q"]) + 0.5) * bits * frame_rate / 1000],
    }
    tensors = _rename_quantizer(state)
    tensors |= _rename_half("decoder", decoder, state)
    if encoder["n_filters"] == decoder["n_filters"]:  # transformers has one width for both halves
        tensors |= _rename_half("encoder", encoder, state)
    check_all_read(path, state, ignore=("encoder.",))
    return described, tensors


def _refuse_other_kinds(path: Path, config: dict[str, Any], decoder: dict[str, Any]) -> None:
    wrong = []
    if config.get("compression_model") != "encodec" or config["encodec"]["autoencoder"] != "seanet":
        wrong.append(f"a {config.get('compression_model')} codec")
    if config["encodec"].get("quantizer") != "rvq":
        wrong.append(f"quantizer={config['encodec'].get('quantizer')}")
    if config["encodec"].get("renormalize"):
        wrong.append("renormalize=True")
    if decoder["norm"] not in ("weight_norm", "none"):
        wrong.append(f"norm={decoder['norm']}")
    if decoder["activation"] != "ELU" or dict(decoder["activation_params"]) != {"alpha": 1.0}:
        wrong.append(f"activation={decoder['activation']}")
    if decoder.get("final_activation"):
        wrong.append(f"final_activation={decoder['final_activation']}")
    if wrong:
        raise ModelUnavailable(f"{path} is a codec of a kind not served: {', '.join(wrong)}")


def _rename_quantizer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pattern = re.compile(r"quantizer\.vq\.layers\.(\d+)\._codebook\.(\w+)")
    return {
        f"quantizer.layers.{match[1]}.codebook.{match[2]}": tensor.float()
        for name, tensor in state.items()
        if (match := pattern.fullmatch(name))
    }


def _rename_half(
    half: str, seanet: dict[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rename the encoder or decoder; add a zero LSTM if it has none, as `EncodecModel` has one."""
    names = [name for name in state if name.startswith(f"{half}.model.")]
    last = max(int(name.split(".")[2]) for name in names)
    lstm_index = 1 if half == "decoder" else last - 1
    silent = not seanet["lstm"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        _, _, index, rest = name.split(".", maxsplit=3)
        position = int(index) + (silent and int(index) >= lstm_index)
        rest = rest.replace("convtr.convtr.", "conv.").replace("conv.conv.", "conv.")
        tensors[f"{half}.layers.{position}.{rest}"] = state[name].float()
    if silent:
        edge, axis = (0, 0) if half == "decoder" else (last, 1)  # the convolution beside the LSTM
        width = next(
            state[name].shape[axis]
            for name in names
            if name.startswith(f"{half}.model.{edge}.") and name.endswith(("weight", "weight_v"))
        )
        for kind, shape in (("weight", (4 * width, width)), ("bias", (4 * width,))):
            for side in ("ih", "hh"):
                tensors[f"{half}.layers.{lstm_index}.lstm.{kind}_{side}_l0"] = torch.zeros(shape)
    return dict(_split_weights(tensors))


def _split_weights(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Give every convolution a normalised weight, those without one included."""
    split: list[tuple[str, Tensor]] = []
    for name, tensor in tensors.items():
        if name.endswith("conv.weight"):
            norm = torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
            stem = name.removesuffix("weight") + "parametrizations.weight"
            # A row of zeros has no direction; any will do, with length 0.
            direction = torch.where(norm > 0, tensor, torch.ones_like(tensor))
            split += [(f"{stem}.original0", norm), (f"{stem}.original1", direction)]
        else:
            split.append((rename_weight_norm(name), tensor))
    return split
