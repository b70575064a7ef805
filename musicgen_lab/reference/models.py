"""Builds audiocraft's modules from an audiocraft checkpoint or from a model folder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from musicgen_lab.conversion.audiocraft import name_as_audiocraft
from musicgen_lab.conversion.parts import read_pickle
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.config import (
    CODEC_FOLDER,
    TEXT_ENCODER_FOLDER,
    ModelConfig,
    is_model_folder,
)
from musicgen_lab.models.library_noise import quiet


def load_audiocraft() -> None:
    """Import audiocraft (about 12 s) without the warnings of its dependencies.

    Raises
    ------
    ModelUnavailable
        When audiocraft is not installed.
    """
    try:
        with quiet():
            importlib.import_module("audiocraft.models")
    except ImportError as error:
        raise ModelUnavailable(
            f"the audiocraft engine cannot be used: {error}; see the README for installing it"
        ) from error


def register_text_encoder(folder: Path) -> str:
    """Let audiocraft load a T5 from a folder; by itself it accepts only eleven names on the Hub.

    Returns
    -------
    str
        The name under which audiocraft's configuration can ask for it.
    """
    from audiocraft.modules.conditioners import T5Conditioner

    name = str(folder)
    if name not in T5Conditioner.MODELS:
        T5Conditioner.MODELS.append(name)
    T5Conditioner.MODELS_DIMS[name] = json.loads((folder / "config.json").read_text())["d_model"]
    return name


def open_models(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """Open audiocraft's language model and codec.

    Parameters
    ----------
    folder : Path
        A model folder, or an audiocraft checkpoint. Where the latter has a folder `text_encoder/`,
        that T5 is used instead of the one the checkpoint names.
    device : torch.device
        float32 on the CPU, float16 elsewhere, as audiocraft does.

    Returns
    -------
    lm : audiocraft.models.lm.LMModel
    codec : audiocraft.models.encodec.CompressionModel

    Raises
    ------
    ModelUnavailable
        When the files are damaged, hold anything but plain tensors and text, or are of a kind that
        needs more than text (melody, style).
    """
    load_audiocraft()
    with quiet():
        if is_model_folder(folder):
            return _from_model_folder(folder, device)
        lm, config = _load_lm(folder, device)
        return lm, _load_codec(folder, config, device)


def _from_model_folder(folder: Path, device: torch.device) -> tuple[Any, Any]:
    config, checkpoint = open_checkpoint(folder)
    lm = _new_lm(config, folder / TEXT_ENCODER_FOLDER, device)
    state = name_as_audiocraft(checkpoint, config)
    named = lm.state_dict().keys()  # torch's own attention keeps its weights one level further down
    nested = {name.replace(".mha.", "."): name for name in named}
    lm.load_state_dict({nested[name]: tensor for name, tensor in state.items()})
    codec = _open_codec(folder / CODEC_FOLDER, config)
    return lm.to(device).eval(), codec.to(device).eval()


def _open_codec(folder: Path, config: ModelConfig) -> Any:
    from audiocraft.models.encodec import (
        CompressionModel,
        HFEncodecCompressionModel,
        InterleaveStereoCompressionModel,
    )
    from transformers import EncodecModel

    class Codec(HFEncodecCompressionModel):  # type: ignore[misc]
        """audiocraft's wrapper, for any number of codes; the original requires a power of two."""

        def __init__(self, model: EncodecModel, codebooks: int) -> None:
            CompressionModel.__init__(self)
            self.model = model
            self.possible_num_codebooks = [codebooks]
            self.set_num_codebooks(codebooks)

    model = EncodecModel.from_pretrained(folder, dtype=torch.float32)
    codec = Codec(model, config.codebooks // config.channels)
    return codec if config.channels == 1 else InterleaveStereoCompressionModel(codec)


def _new_lm(config: ModelConfig, text_encoder: Path, device: torch.device) -> Any:
    """Build the language model that a model folder describes, without its weights."""
    from audiocraft.models.lm import LMModel
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider, T5Conditioner

    name = register_text_encoder(text_encoder)
    text = T5Conditioner(name, config.dim, finetune=False, device=str(device))
    return LMModel(
        DelayedPatternProvider(config.codebooks, delays=config.delays),
        ConditioningProvider({"description": text}, device=device),
        ConditionFuser(
            {"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []}
        ),
        n_q=config.codebooks,
        card=config.card,
        dim=config.dim,
        num_heads=config.heads,
        num_layers=config.layers,
        hidden_scale=config.ffn_dim / config.dim,
        norm_first=True,
        activation="gelu",
        bias_ff=False,
        bias_attn=False,
        bias_proj=config.bias_proj,
        dropout=0.0,
        causal=True,
        cross_attention=True,
        positional_embedding="sin",
        max_period=config.max_period,
        positional_scale=config.positional_scale,
        device=device,
        dtype=torch.float32 if device.type == "cpu" else torch.float16,
    )


def _read_checkpoint(path: Path) -> dict[str, Any]:
    package = read_pickle(path)
    if "pretrained" not in package and not {"xp.cfg", "best_state"} <= package.keys():
        raise ModelUnavailable(
            f"{path} is not an audiocraft checkpoint: it has no xp.cfg and best_state; "
            "fetch it again"
        )
    return package


def _misfit(path: Path, error: Exception) -> ModelUnavailable:
    reason = " ".join(str(error).split())[:120]
    return ModelUnavailable(f"{path} does not fit its own configuration ({reason}…)")


def _load_lm(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """Return the language model and its configuration."""
    from audiocraft.models import builders
    from omegaconf import OmegaConf

    path = folder / "state_dict.bin"
    package = _read_checkpoint(path)
    config = OmegaConf.create(package["xp.cfg"])
    OmegaConf.set_struct(config, False)
    kinds = sorted(
        {config.conditioners[name].model for name in config.conditioners if name != "args"}
    )
    if kinds != ["t5"]:
        raise ModelUnavailable(
            f"{path} is conditioned on {', '.join(kinds)}; only text models are served, "
            "not melody or style"
        )
    config.device = str(device)
    config.dtype = "float32" if device.type == "cpu" else "float16"
    for option in ("merge_text_conditions_p", "drop_desc_p"):  # training only
        config.conditioners.get("args", {}).pop(option, None)
    own_text_encoder = folder / "text_encoder"
    if own_text_encoder.is_dir():
        config.conditioners.description.t5.name = register_text_encoder(own_text_encoder)
    try:
        lm = builders.get_lm_model(config)
        lm.load_state_dict(package["best_state"])
    except OSError as error:  # transformers could not fetch the T5 that the checkpoint names
        name = config.conditioners.description.t5.name
        raise ModelUnavailable(
            f"the text encoder {name} is not on this machine and could not be fetched; connect "
            f"once, or put it into {own_text_encoder}"
        ) from error
    except RuntimeError as error:
        raise _misfit(path, error) from error
    return lm.eval(), config


def _load_codec(folder: Path, lm_config: Any, device: torch.device) -> Any:
    from audiocraft.models import builders
    from audiocraft.models.encodec import CompressionModel
    from omegaconf import OmegaConf

    path = folder / "compression_state_dict.bin"
    package = _read_checkpoint(path)
    if "pretrained" in package:
        try:
            codec = CompressionModel.get_pretrained(package["pretrained"], device=device)
        except OSError as error:
            raise ModelUnavailable(
                f"the codec {package['pretrained']} is not on this machine and could not be "
                "fetched; connect once"
            ) from error
    else:
        config = OmegaConf.create(package["xp.cfg"])
        config.device = str(device)
        codec = builders.get_compression_model(config)
        try:
            codec.load_state_dict(package["best_state"])
        except RuntimeError as error:
            raise _misfit(path, error) from error
    return builders.get_wrapped_compression_model(codec.eval(), lm_config).eval()
