"""`TextEncoder`: the T5 encoder that computes the text conditioning of the language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.t5 import T5Config, T5Encoder
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint
from musicgen_lab.models.config import WEIGHTS_FILE, load_part_config
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.models.tokenizer import (
    TOKENIZER_FILE,
    check_vocabulary,
    read_prompt,
    read_tokenizer,
)


class TextEncoderFiles:
    """A transformers folder with a T5 encoder and its tokenizer, not loaded onto a device.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    folder : Path
    config : T5Config
    weights : Checkpoint
    tokenizer : tokenizers.Tokenizer

    Raises
    ------
    ModelUnavailable
        When a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_part_config(T5Config, folder)
        self.weights = Checkpoint(folder / WEIGHTS_FILE)
        self.tokenizer = read_tokenizer(folder / TOKENIZER_FILE)
        check_vocabulary(self.tokenizer, folder / TOKENIZER_FILE, self.config.vocab_size)


class TextEncoder:
    """A T5 encoder with its tokenizer and the projection to the language model's width.

    It always computes in float32: it runs once per prompt, so that 16 bits would save little time.

    Parameters
    ----------
    files : TextEncoderFiles
    tensors : mapping of str to Tensor
        With the projection's weight (dim, text_dim) and bias (dim,).
    device : torch.device

    Raises
    ------
    ModelUnavailable
        When the weights do not fit their configuration or the projection.
    """

    def __init__(
        self, files: TextEncoderFiles, tensors: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self._device, self._tokenizer = device, files.tokenizer
        self._weight = tensors["text_projection.weight"].to(device, torch.float32)
        self._bias = tensors["text_projection.bias"].to(device, torch.float32)
        if files.config.d_model != self._weight.shape[1]:
            raise ModelUnavailable(
                f"{files.folder} has width {files.config.d_model}, but the model was made for "
                f"{self._weight.shape[1]}; prepare the model again"
            )
        try:
            self._encoder = T5Encoder(files.config, files.weights, device)
        except (KeyError, ValueError) as error:
            reason = " ".join(map(str, error.args))
            raise ModelUnavailable(
                f"{files.folder} is damaged ({reason}); prepare the model again"
            ) from None

    def read_prompt(self, prompt: str) -> PromptTokens:
        """Return what the encoder reads of a prompt."""
        return read_prompt(self._tokenizer, prompt)

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Encode one prompt alone, without padding.

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
