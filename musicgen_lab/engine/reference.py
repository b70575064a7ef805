"""The reference engine: audiocraft itself, one clip at a time.

It is slow and it is the yardstick: what another engine makes is right when it is what this one
makes. Every clip is generated alone, because in audiocraft a clip's numbers depend on the other
prompts of its batch, and it draws from its own seed, leaving the caller's random state untouched.
"""

from __future__ import annotations

import importlib
import json
import pickle
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lab.clip import Clip, Provenance
from musicgen_lab.engine.quiet import quiet
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.request import GenerationRequest

Progress = Callable[[int, int], None]

_RANDOM_STATE = threading.Lock()  # audiocraft draws from torch's global generator


def load_audiocraft() -> None:
    """Import audiocraft (12 s or so) without the warnings of the libraries under it.

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
    """Let audiocraft load a T5 from a folder, where it only knows eleven names on the Hub.

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


class ReferenceEngine:
    """audiocraft's MusicGen, generating every clip by itself.

    Parameters
    ----------
    folder : Path
        An audiocraft checkpoint: `state_dict.bin` and `compression_state_dict.bin`. Where it has a
        folder `text_encoder/`, that T5 is used instead of the one the checkpoint names.
    device : str
        "auto", "cpu", "cuda" or any other of torch's. float32 on the CPU, float16 elsewhere.

    Raises
    ------
    ModelUnavailable
        When the files are damaged, hold anything but plain tensors and text, or are of a kind that
        needs more than text (melody, style).
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        load_audiocraft()
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        with quiet():
            self._lm = _load_lm(folder, self.device)
            self._codec = _load_codec(folder, self._lm.cfg, self.device)
        self.provenance = Provenance(
            engine=f"audiocraft {version('audiocraft')}",
            device=str(self.device),
            dtype="float32" if self.device.type == "cpu" else "float16",
            lab_version=version("musicgen-lab"),
            details={"torch": torch.__version__, "threads": torch.get_num_threads()},
        )

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self._codec.sample_rate)

    def generate(self, request: GenerationRequest, progress: Progress | None = None) -> Clip:
        """Generate one clip.

        Parameters
        ----------
        request : GenerationRequest
        progress : callable, optional
            Called with (steps done, steps to do).

        Returns
        -------
        Clip
            The same samples for the same request, whatever ran before.

        Raises
        ------
        ArithmeticError
            When the model's output is not finite.
        """
        started = time.perf_counter()
        tokens = self.generate_tokens(request, progress)
        with torch.inference_mode():
            audio = self._codec.decode(tokens)[0]  # (channels, n)
        samples = audio.float().cpu().numpy().astype(np.float32, copy=False)
        if not np.isfinite(samples).all():
            raise ArithmeticError("the model's output is not finite")
        return Clip(
            request, samples, self.sample_rate, self.provenance, time.perf_counter() - started
        )

    def generate_tokens(
        self, request: GenerationRequest, progress: Progress | None = None
    ) -> torch.Tensor:
        """Generate a clip's codes, without decoding them.

        Returns
        -------
        torch.Tensor [shape=(1, codebooks, frames)]
        """
        from audiocraft.modules.conditioners import ConditioningAttributes
        from audiocraft.utils.autocast import TorchAutocast

        on_cpu = self.device.type == "cpu"
        autocast = TorchAutocast(
            enabled=not on_cpu, device_type=self.device.type, dtype=torch.float16
        )
        frames = int(request.duration * self._codec.frame_rate)
        devices = [] if on_cpu else [self.device]
        with _RANDOM_STATE, torch.random.fork_rng(devices=devices), autocast:
            torch.manual_seed(request.seed)
            tokens: torch.Tensor = self._lm.generate(
                None,
                [ConditioningAttributes(text={"description": request.prompt})],
                max_gen_len=frames,
                use_sampling=request.temperature > 0,
                temp=request.temperature,
                top_k=min(request.top_k, self._lm.card),  # audiocraft fails above the card
                top_p=request.top_p,
                cfg_coef=request.cfg_coef,
                two_step_cfg=False,  # with two steps audiocraft ignores the cfg_coef it is given
                callback=progress,
            )
        return tokens


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read tensors and plain values; anything that would run code is refused."""
    try:
        package: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not {"pretrained"} & package.keys() and not {"xp.cfg", "best_state"} <= package.keys():
            raise KeyError("no xp.cfg and best_state in it")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(
            f"{path} is damaged or not an audiocraft checkpoint ({reason[:120]}); fetch it again"
        ) from error
    return package


def _misfit(path: Path, error: Exception) -> ModelUnavailable:
    reason = " ".join(str(error).split())[:120]
    return ModelUnavailable(f"{path} does not fit its own configuration ({reason}…)")


def _load_lm(folder: Path, device: torch.device) -> Any:
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
    lm.eval()
    lm.cfg = config
    return lm


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
