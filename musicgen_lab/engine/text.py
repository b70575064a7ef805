"""`TextEncoder`: the T5 encoder that computes the text conditioning of the language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tokenizers
import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.t5 import T5Config, T5Encoder
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint
from musicgen_lab.models.config import WEIGHTS_FILE, load_part_config
from musicgen_lab.models.hub import PINNED

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_BYTES_MAX = 64_000_000  # T5's has 1.4 million
MISSING_TOKENIZER = (
    "copy the tokenizer.json or spiece.model of its T5 into the checkpoint (for T5-base: "
    f"`hf download t5-base spiece.model --revision {PINNED['t5-base']} --local-dir FOLDER`), "
    "then prepare the model again"
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
        self.tokenizer = read_tokenizer(folder / TOKENIZER_FILE, self.config.vocab_size)


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


def read_tokenizer(path: Path, vocab_size: int) -> tokenizers.Tokenizer:
    """Read a tokenizer that can tell words apart.

    transformers makes up an empty vocabulary where the files of a T5 tokenizer are missing. Every
    prompt would then become the same few tokens.

    Parameters
    ----------
    path : Path
        A `tokenizer.json`.
    vocab_size : int
        Rows of the encoder's embedding.

    Raises
    ------
    ModelUnavailable
        When the file cannot be read, its vocabulary is empty, or it is another encoder's.
    """
    try:
        if path.stat().st_size > TOKENIZER_BYTES_MAX:
            raise ValueError(f"it is larger than {TOKENIZER_BYTES_MAX:,} bytes")
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        reason = " ".join(str(error).split())[:120]
        raise ModelUnavailable(
            f"{path} cannot be read ({reason}); prepare the model again"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vocabulary = tokenizer.get_vocab()
    if max(vocabulary.values(), default=0) >= vocab_size:
        raise ModelUnavailable(
            f"{path} has tokens up to number {max(vocabulary.values()):,}, but the text encoder "
            f"knows {vocab_size:,}: it is another encoder's; {MISSING_TOKENIZER}"
        )
    if not _tells_words(tokenizer, vocabulary):
        raise ModelUnavailable(
            f"{path} cannot tell words apart: its vocabulary holds none, so every prompt would "
            f"become the same tokens; {MISSING_TOKENIZER}"
        )
    return tokenizer


def _tells_words(tokenizer: tokenizers.Tokenizer, vocabulary: Mapping[str, int]) -> bool:
    """Say whether at least two pieces of the vocabulary are encoded as different tokens."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = (piece.strip("▁Ġ ") for piece in vocabulary.keys() - special)
    encoded: set[tuple[int, ...]] = set()
    for word in words:
        if any(character.isalnum() for character in word):
            encoded.add(tuple(tokenizer.encode(word, add_special_tokens=False).ids))
            if len(encoded) == 2:
                return True
    return False
