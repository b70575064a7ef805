"""`TextEncoder`: the T5 encoder that turns a prompt into what the language model listens to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.quiet import quiet
from musicgen_lab.errors import ModelUnavailable


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
        if not folder.is_dir():
            raise ModelUnavailable(f"{folder} is missing; prepare the model again")
        with quiet():
            from transformers import AutoTokenizer, T5EncoderModel

            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._encoder = T5EncoderModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
            except Exception as error:  # transformers raises nearly every type there is
                reason = str(error).strip().partition("\n")[0]
                raise ModelUnavailable(
                    f"{folder} is damaged ({reason[:120]}); prepare the model again"
                ) from None
        self._encoder.to(device).eval()
        width = self._encoder.config.d_model
        if width != self._weight.shape[1]:
            raise ModelUnavailable(
                f"{folder} has width {width}, but the model was made for "
                f"{self._weight.shape[1]}; prepare the model again"
            )

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
        with quiet():  # it warns of prompts beyond 512 tokens, which T5's relative positions allow
            tokens = self._tokenizer([prompt], return_tensors="pt")["input_ids"].to(self._device)
        hidden = self._encoder(input_ids=tokens).last_hidden_state[0]  # (T, text_dim)
        return F.linear(hidden, self._weight, self._bias)
