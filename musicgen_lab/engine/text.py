"""`TextEncoder`: the T5 encoder that turns a prompt into what the language model listens to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tokenizers
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.checkpoint import Checkpoint
from musicgen_lab.engine.config import WEIGHTS_FILE, load_part_config
from musicgen_lab.engine.t5 import T5Config, T5Encoder
from musicgen_lab.errors import ModelUnavailable

TOKENIZER_FILE = "tokenizer.json"


class TextEncoder:
    """A T5 encoder with its tokenizer and the projection to the language model's width.

    It always computes in float32: it runs once per prompt, and 16 bits would cost more quality than
    time.

    Parameters
    ----------
    folder : Path
        A transformers folder with the encoder and its tokenizer.
    tensors : mapping of str to Tensor
        With the projection's weight (dim, text_dim) and bias (dim,).
    device : torch.device

    Raises
    ------
    ModelUnavailable
        When the folder is damaged or does not fit the projection.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._device = device
        self._weight = tensors["text_projection.weight"].to(device, torch.float32)
        self._bias = tensors["text_projection.bias"].to(device, torch.float32)
        config, weights = load_part_config(T5Config, folder), Checkpoint(folder / WEIGHTS_FILE)
        if config.d_model != self._weight.shape[1]:
            raise ModelUnavailable(
                f"{folder} has width {config.d_model}, but the model was made for "
                f"{self._weight.shape[1]}; prepare the model again"
            )
        self._tokenizer = _read_tokenizer(folder / TOKENIZER_FILE)
        try:
            self._encoder = T5Encoder(config, weights, device)
        except (KeyError, ValueError) as error:
            raise ModelUnavailable(
                f"{folder} is damaged ({' '.join(map(str, error.args))}); prepare the model again"
            ) from None

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Encode one prompt by itself, so that no other prompt pads it.

        Parameters
        ----------
        prompt : str

        Returns
        -------
        Tensor
            (T, dim) for the prompt's T tokens, its end token included.
        """
        tokens = torch.tensor(self._tokenizer.encode(prompt).ids, device=self._device)
        return F.linear(self._encoder(tokens), self._weight, self._bias)


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        reason = " ".join(str(error).split())[:120]
        raise ModelUnavailable(
            f"{path} cannot be read ({reason}); prepare the model again"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
