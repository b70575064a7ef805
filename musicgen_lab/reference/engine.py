"""The reference engine: audiocraft, one clip at a time.

It is slow, and defines which results are correct. Every clip is generated alone, because in
audiocraft a clip depends on the other prompts of its batch, and from its own seed, without changing
the caller's random state.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lab.clip import Clip, Failure, Provenance, Samples
from musicgen_lab.engine.beginnings import whole_frames
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.models.config import is_model_folder, load_config
from musicgen_lab.reference.models import open_models
from musicgen_lab.request import GenerationRequest
from musicgen_lab.version import VERSION

_RANDOM_STATE = threading.Lock()  # audiocraft draws from torch's global generator


class ReferenceEngine:
    """audiocraft's MusicGen, generating every clip alone.

    Parameters
    ----------
    folder : Path
        A model folder, or a checkpoint in audiocraft's own format.
    device : str
        "auto", "cpu", "cuda" or any other of torch's. float32 on the CPU, float16 elsewhere.

    Attributes
    ----------
    on_progress : callable or None
        Called with the number of steps made since the last call.

    Raises
    ------
    ModelUnavailable
        When the files are damaged, hold anything but plain tensors and text, or are of a kind that
        needs more than text (melody, style).
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.on_progress: Callable[[int], None] | None = None
        self._lm, self._codec = open_models(folder, self.device)
        self._window_s = load_config(folder).window_s if is_model_folder(folder) else WINDOW_S
        self.provenance = Provenance(
            engine=f"audiocraft {version('audiocraft')}",
            device=str(self.device),
            dtype="float32" if self.device.type == "cpu" else "float16",
            lab_version=VERSION,
            details={"torch": str(torch.__version__), "threads": torch.get_num_threads()},
        )

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self._codec.sample_rate)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Clip | Failure]:
        """Make a clip or a failure of every request, one after another.

        Parameters
        ----------
        requests : iterable of GenerationRequest
            Taken one at a time.

        Yields
        ------
        Clip or Failure
            The same request always gives the same samples, independent of earlier ones.
        """
        for request in requests:
            started_s = time.perf_counter()
            try:
                samples = self._generate_samples(request)
                elapsed_s = time.perf_counter() - started_s
                result: Clip | Failure = Clip(
                    request, samples, self.sample_rate, self.provenance, elapsed_s
                )
            except Exception as error:
                elapsed_s = time.perf_counter() - started_s
                result = Failure.from_error(request, error, elapsed_s)
            yield result

    def _generate_samples(self, request: GenerationRequest) -> Samples:
        tokens = self.generate_tokens(request)
        with torch.inference_mode():
            audio = self._codec.decode(tokens)[0]  # (channels, n)
        samples: Samples = audio.float().cpu().numpy()
        if not request.include_start:
            given = self._given_frames(request) / self._codec.frame_rate
            samples = samples[:, round(given * self.sample_rate) :]
        if not np.isfinite(samples).all():
            raise ArithmeticError("the model's output is not finite")
        return samples

    def generate_tokens(self, request: GenerationRequest) -> torch.Tensor:
        """Generate a clip's codes, without decoding them.

        Returns
        -------
        torch.Tensor [shape=(1, codebooks, frames)]
        """
        from audiocraft.models import MusicGen
        from audiocraft.utils.autocast import TorchAutocast

        on_cpu = self.device.type == "cpu"
        autocast = TorchAutocast(
            enabled=not on_cpu, device_type=self.device.type, dtype=torch.float16
        )
        for name in ("negative_prompt", "prompt_b"):
            if getattr(request, name):
                raise InvalidRequest(
                    f"audiocraft has no {name}; use the lab's own engine",
                    field=name,
                    value=getattr(request, name),
                )
        music = MusicGen("reference", self._codec, self._lm, WINDOW_S)
        music.max_duration = self._window_s  # which may be less than its default stride
        music.set_custom_progress_callback(self._count_step)
        music.set_generation_params(
            duration=request.duration,
            use_sampling=request.temperature > 0,
            temperature=request.temperature,
            top_k=min(request.top_k, self._lm.card),  # audiocraft fails above the card
            top_p=request.top_p,
            cfg_coef=request.cfg_coef,
            two_step_cfg=False,  # with two steps audiocraft ignores the cfg_coef it is given
            extend_stride=request.extend_stride if request.duration > self._window_s else 0,
        )
        devices = [] if on_cpu else [self.device]
        with _RANDOM_STATE, torch.random.fork_rng(devices=devices), autocast:
            torch.manual_seed(request.seed)
            attributes, _ = music._prepare_tokens_and_attributes([request.prompt], None)
            tokens: torch.Tensor = music._generate_tokens(
                attributes, self._beginning(music, request), progress=True
            )
        return tokens

    def _beginning(self, music: Any, request: GenerationRequest) -> torch.Tensor | None:
        """Return the codes that a clip begins with, (1, codebooks, frames); None if there are none.

        A sound is cut to whole frames, then converted and encoded as `generate_continuation` does.
        """
        from audiocraft.data.audio_utils import convert_audio

        source, frames = request.begin_with, self._given_frames(request)
        if source is None:
            return None
        if source.is_codes:
            first = whole_frames(request.begin_at, music.frame_rate)
            codes = source.codes().codes[:, first : first + frames].astype(np.int64)
            return torch.from_numpy(codes).to(self.device)[None]
        samples, rate = source.sound()
        first = round(request.begin_at * rate)
        end = first + math.ceil(frames / music.frame_rate * rate)
        wave = torch.from_numpy(samples[:, first:end]).to(self.device)[None]
        wave = convert_audio(wave, rate, music.sample_rate, music.audio_channels)
        with torch.inference_mode():
            encoded: torch.Tensor = self._codec.encode(wave)[0][..., :frames]
        return encoded

    def _given_frames(self, request: GenerationRequest) -> int:
        """Return the codec frames that a clip begins with."""
        return whole_frames(request.given_s or 0.0, self._codec.frame_rate)

    def _count_step(self, done: int, to_do: int) -> None:
        if self.on_progress is not None:
            self.on_progress(1)
