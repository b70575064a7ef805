"""How good a clip sounds, as a model that was trained on listeners' ratings judges it.

Like `perceptual`, it needs weights, hence the `perceptual` extra and, the first time, a network.
Nothing here is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.errors import ModelUnavailable

AESTHETICS = "facebook/audiobox-aesthetics"
"""The default model, of 416 MB. Its weights are licensed CC-BY 4.0."""

SCORES = {
    "content_enjoyment": "CE",
    "content_usefulness": "CU",
    "production_complexity": "PC",
    "production_quality": "PQ",
}
"""The scores, and what the model calls them."""

RATE_HZ, WINDOW_S = 16_000, 10


class Aesthetics:
    """Meta's Audiobox Aesthetics: what listeners would rate a sound, on four scales [1]_.

    The weights are Meta's and licensed CC-BY 4.0: name them where you publish scores.

    Parameters
    ----------
    source : str
        A Hub id, fetched once into the Hub's cache, or a folder with the same `config.json` and
        `model.safetensors`. Nothing in them is executed.

    Raises
    ------
    ModelUnavailable
        When the extra is missing, or the model is not there and cannot be fetched, or is another.

    References
    ----------
    .. [1] Tjandra, A., et al. (2025). Meta Audiobox Aesthetics: Unified automatic quality
       assessment for speech, music, and sound. arXiv:2502.05139.
    """

    def __init__(self, source: str = AESTHETICS) -> None:
        try:
            from audiobox_aesthetics.infer import Normalize
            from audiobox_aesthetics.model.aes import AesMultiOutput
            from safetensors import SafetensorError
            from safetensors.torch import load_model
        except ImportError as error:
            raise ModelUnavailable(
                "Audiobox Aesthetics needs the perceptual extra: "
                "pip install 'musicgen-lab[perceptual]'"
            ) from error
        try:
            config = _file(source, "config.json")
            weights = _file(source, "model.safetensors")
        except (OSError, ValueError) as error:
            raise ModelUnavailable(
                f"the Audiobox Aesthetics model {source} is not here and could not be fetched "
                f"({_reason(error)}); all other features work without it"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's, of how the package builds
                self._model: Any = AesMultiOutput(**json.loads(config.read_text()))
            load_model(self._model, weights)  # one missing weight would be a random one: refused
            scales = self._model.target_transform
            self._scales = {name: Normalize(**scales[axis]) for name, axis in SCORES.items()}
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelUnavailable(
                f"{source} is damaged or no Audiobox Aesthetics model ({_reason(error)}); use "
                f"{AESTHETICS} or a copy of it"
            ) from error
        self._model.eval()

    def scores(self, samples: Array, sample_rate: int) -> dict[str, float]:
        """Return a clip's scores.

        The channels are mixed and resampled to 16 kHz, as the model was trained: it does not hear
        what is above 8 kHz. It hears ten seconds at a time; of longer clips, the average of their
        tens is taken, what is left at the end counting by its length.

        Returns
        -------
        dict[str, float]
            `content_enjoyment`: how much a listener likes it. `content_usefulness`: how well it
            serves as material for something else. `production_complexity`: how much goes on at
            once, neither good nor bad. `production_quality`: how clean and well made it sounds.
            Each from 1 to 10, as listeners rated; a prediction can fall a little outside. NaN for
            a clip that is silent throughout.
        """
        import torch
        from audiobox_aesthetics.infer import make_inference_batch
        from torchaudio.functional import resample

        mixed = samples.mean(axis=0, dtype=np.float64)
        if not np.any(mixed):
            return dict.fromkeys(SCORES, float("nan"))
        heard = resample(torch.from_numpy(mixed.astype(np.float32))[None], sample_rate, RATE_HZ)
        windows, masks, weights, _ = make_inference_batch([heard], WINDOW_S, WINDOW_S, RATE_HZ)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, of how the package masks
            # One by one, so that a long clip needs no more memory.
            predictions = [
                self._model({"wav": window[None], "mask": mask[None]})
                for window, mask in zip(windows, masks, strict=True)
            ]
        return {
            name: float(
                np.average(
                    [scale.inverse(row[SCORES[name]].item()) for row in predictions], 0, weights
                )
            )
            for name, scale in self._scales.items()
        }


def _file(source: str, name: str) -> Path:
    """Return a file of the model, fetching it if it is not on this machine yet."""
    if Path(source).is_dir():
        return Path(source) / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import logging as hub

    with contextlib.suppress(LocalEntryNotFoundError):
        return Path(hf_hub_download(source, name, local_files_only=True))
    verbosity = hub.get_verbosity()
    hub.set_verbosity(logging.ERROR)  # without a network, each of its attempts would be a warning
    try:
        return Path(hf_hub_download(source, name))
    finally:
        hub.set_verbosity(verbosity)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
