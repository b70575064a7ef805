"""How well a clip fits its prompt, as a model that was trained to tell judges it: CLAP.

Only this and `aesthetics` need weights, and hence the `perceptual` extra and, the first time, a
network. Nothing here is imported before it is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.errors import ModelUnavailable

CLAP = "laion/larger_clap_music"
"""The default model, trained on music and its captions."""

CLAP_RATE_HZ, PIECE_S = 48_000, 10.0


class Clap:
    """A contrastive language-audio model: text and sound as points in one space [1]_.

    Parameters
    ----------
    source : str
        A Hub id, fetched once into the Hub's cache, or a folder in transformers' format.

    Raises
    ------
    ModelUnavailable
        When the extra is missing, or the model is not there and cannot be fetched.

    References
    ----------
    .. [1] Wu, Y., et al. (2023). Large-scale contrastive language-audio pretraining with feature
       fusion and keyword-to-caption augmentation. Proceedings of ICASSP.
    """

    def __init__(self, source: str = CLAP) -> None:
        try:
            from transformers import AutoFeatureExtractor, AutoTokenizer, ClapModel
        except ImportError as error:
            raise ModelUnavailable(
                "CLAP needs the perceptual extra: pip install 'musicgen-lab[perceptual]'"
            ) from error
        try:
            self._extractor = AutoFeatureExtractor.from_pretrained(source)
            self._tokenizer = AutoTokenizer.from_pretrained(source)
            self._model = ClapModel.from_pretrained(source).eval()
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelUnavailable(
                f"the CLAP model {source} is not here and could not be fetched ({reason}); all "
                "other features work without it"
            ) from error

    def embed_sound(self, samples: Array, sample_rate: int) -> Array:
        """Return a clip's point, (d,), of length 1; NaN for a clip that is silent throughout.

        The channels are mixed and resampled to 48 kHz, as the model was trained. It hears ten
        seconds at a time: of longer clips, the average of their tens is taken.
        """
        from scipy.signal import resample_poly

        mixed = samples.mean(axis=0, dtype=np.float64)
        if not np.any(mixed):
            return np.full(self._model.config.projection_dim, np.nan)
        common = np.gcd(CLAP_RATE_HZ, sample_rate)
        heard = resample_poly(mixed, CLAP_RATE_HZ // common, sample_rate // common)
        pieces = np.array_split(heard, -(-len(heard) // round(PIECE_S * CLAP_RATE_HZ)))
        inputs = self._extractor(
            [piece.astype(np.float32) for piece in pieces],
            sampling_rate=CLAP_RATE_HZ,
            return_tensors="pt",
        )
        return self._point(self._model.get_audio_features, inputs)

    def embed_text(self, text: str) -> Array:
        """Return a text's point, (d,), of length 1."""
        inputs = self._tokenizer([text], return_tensors="pt", truncation=True)
        return self._point(self._model.get_text_features, inputs)

    def similarity(self, samples: Array, sample_rate: int, text: str) -> float:
        """Return how well a clip fits a text: the cosine of the angle between their points.

        Returns
        -------
        float
            From -1 to 1. What is high depends on the model: compare clips of one prompt. NaN for
            silence.
        """
        return float(self.embed_sound(samples, sample_rate) @ self.embed_text(text))

    def _point(self, embed: Any, inputs: Any) -> Array:
        import torch

        with torch.inference_mode():
            output = embed(**inputs)
        point = output.pooler_output if hasattr(output, "pooler_output") else output
        row = point.double().mean(dim=0).numpy()
        return np.asarray(row / np.linalg.norm(row))
