"""The engines that `bench` compares, with a common interface."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from musicgen_lab.clip import Failure
from musicgen_lab.engine.device import choose_device, choose_dtype
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.config import CODEC_FOLDER, TEXT_ENCODER_FOLDER, ModelConfig
from musicgen_lab.models.library_noise import quiet
from musicgen_lab.request import GenerationRequest


class BenchEngine(Protocol):
    """An engine under test.

    Attributes
    ----------
    name : str
    device, dtype : str
        Where and in which precision it computes.
    clips_at_once : int
        The most clips of one call.
    """

    name: str
    device: str
    dtype: str
    clips_at_once: int

    def make(self, requests: Sequence[GenerationRequest]) -> float:
        """Make these clips, decoding included; return the seconds until the first was finished."""


class LabEngine:
    """The engine of this package: different clips in one batch."""

    name = "lab"

    def __init__(self, engine: Engine, clips: int) -> None:
        self._engine = engine
        self.device = self._engine.provenance.device
        self.dtype = self._engine.provenance.dtype
        self.clips_at_once = clips

    def make(self, requests: Sequence[GenerationRequest]) -> float:
        """Make these clips; return the seconds until the first was finished."""
        started_s, first_s = time.perf_counter(), 0.0
        for result in self._engine.generate(requests):
            first_s = first_s or time.perf_counter() - started_s
            if isinstance(result, Failure):
                raise RuntimeError(f"{result.error_type}: {result.message}")
        return first_s


class AudiocraftEngine:
    """audiocraft: clips of one batch share their sampling parameters.

    Parameters
    ----------
    folder : Path
    device : str
    clips_at_once : int
        1 for a loop over a grid of parameters; more for a batch of equal parameters.
    """

    def __init__(self, folder: Path, device: str, clips_at_once: int = 1) -> None:
        from musicgen_lab.reference.models import open_models

        self._lm, self._codec = open_models(folder, torch.device(device))
        self.name = "audiocraft" if clips_at_once == 1 else "audiocraft batch"
        self.device, self.clips_at_once = device, clips_at_once
        self.dtype = "float32" if device == "cpu" else "float16"

    @torch.inference_mode()
    def make(self, requests: Sequence[GenerationRequest]) -> float:
        """Make these clips with the parameters of the first; return the seconds it took."""
        from audiocraft.modules.conditioners import ConditioningAttributes
        from audiocraft.utils.autocast import TorchAutocast

        started_s, first = time.perf_counter(), requests[0]
        conditions = [ConditioningAttributes(text={"description": r.prompt}) for r in requests]
        on_gpu = self.device != "cpu"
        with TorchAutocast(enabled=on_gpu, device_type=self.device, dtype=torch.float16):
            tokens = self._lm.generate(
                None,
                conditions,
                max_gen_len=int(first.duration * self._codec.frame_rate),
                temp=first.temperature,
                top_k=first.top_k,
                top_p=first.top_p,
                cfg_coef=first.cfg_coef,
                two_step_cfg=False,
            )
        for each in tokens:  # a batch of clips at once would need its memory for each
            self._codec.decode(each[None]).cpu()
        return time.perf_counter() - started_s


class TransformersEngine:
    """transformers' `generate`: clips of one batch share their sampling parameters.

    Its weights are random: the time does not depend on their values.
    """

    name = "transformers"

    def __init__(self, folder: Path, device: str, dtype: torch.dtype, clips_at_once: int) -> None:
        with quiet():
            from transformers import AutoTokenizer, MusicgenForConditionalGeneration

            config, _ = open_checkpoint(folder)
            self._model: Any = MusicgenForConditionalGeneration(_describe(folder, config))
            self._tokenizer = AutoTokenizer.from_pretrained(folder / TEXT_ENCODER_FOLDER)
        self._model.to(device, dtype).eval()
        self._config = config
        self.device, self.dtype = device, str(dtype).removeprefix("torch.")
        self.clips_at_once = clips_at_once

    @torch.inference_mode()
    def make(self, requests: Sequence[GenerationRequest]) -> float:
        """Make these clips with the parameters of the first; return the seconds it took."""
        started_s, first = time.perf_counter(), requests[0]
        prompts = self._tokenizer(
            [request.prompt for request in requests], padding=True, return_tensors="pt"
        ).to(self.device)
        steps = self._config.count_steps(first.duration)
        with quiet():
            sound: Tensor = self._model.generate(
                **prompts,
                do_sample=True,
                temperature=first.temperature,
                top_k=first.top_k,
                guidance_scale=first.cfg_coef,
                max_new_tokens=steps,
            )
        sound.cpu()
        return time.perf_counter() - started_s


def _describe(folder: Path, config: ModelConfig) -> Any:
    """Return transformers' configuration of the same architecture."""
    from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, T5Config

    return MusicgenConfig(
        text_encoder=T5Config.from_pretrained(folder / TEXT_ENCODER_FOLDER),
        audio_encoder=EncodecConfig(
            **json.loads((folder / CODEC_FOLDER / "config.json").read_text())
        ),
        decoder=MusicgenDecoderConfig(
            vocab_size=config.card,
            num_hidden_layers=config.layers,
            ffn_dim=config.ffn_dim,
            num_attention_heads=config.heads,
            hidden_size=config.dim,
            num_codebooks=config.codebooks,
            audio_channels=config.channels,
            pad_token_id=config.card,
            bos_token_id=config.card,
        ),
    )


def open_bench_engine(
    name: str, folder: Path, *, options: EngineOptions, clips: int
) -> BenchEngine:
    """Open an engine by its name, one of `run.ENGINES`.

    Raises
    ------
    ModelUnavailable
        When its library is not installed, or the model cannot be opened.
    """
    torch_device = choose_device(options.device)
    if name == "lab":
        return LabEngine(Engine.open(folder, options), clips)
    at_once = clips if name.endswith("batch") else 1
    if name.startswith("audiocraft"):
        return AudiocraftEngine(folder, torch_device.type, at_once)
    dtype = choose_dtype(options.dtype, torch_device)
    engine = TransformersEngine(folder, torch_device.type, dtype, at_once)
    engine.name = name.replace("-", " ")
    return engine


def memory_bandwidth(device: str) -> float:
    """Measure how fast a device reads memory.

    Returns
    -------
    float
        Bytes per second, the best of several sums over a buffer far larger than any cache.
    """
    torch_device = choose_device(device)
    on_gpu = torch_device.type == "cuda"
    values = torch.ones((2**30 if on_gpu else 2**29) // 4, device=torch_device)
    if on_gpu:
        return values.nbytes / min(_time_on_gpu(values.sum) for _ in range(10))
    best_s = float("inf")
    for _ in range(5):
        started_s = time.perf_counter()
        values.sum().item()
        best_s = min(best_s, time.perf_counter() - started_s)
    return values.nbytes / best_s


def _time_on_gpu(work: Callable[[], object]) -> float:
    """Return the seconds on the current device, without the host's time."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run busy processes meanwhile, to measure the effect of other load."""
    loops = [
        subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"]) for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def used_memory(device: str) -> int:
    """Return the bytes of memory in use by this process, or the peak on a GPU."""
    if choose_device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
