"""`Prompts`: what cross-attention reads of the last few prompts."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from musicgen_lab.engine.text import TextEncoder
from musicgen_lab.engine.transformer import Transformer

PROMPTS_KEPT = 8


class Prompts:
    """Keys and values by prompt, made when first asked for.

    Parameters
    ----------
    text_encoder : TextEncoder
    transformer : Transformer
    """

    def __init__(self, text_encoder: TextEncoder, transformer: Transformer) -> None:
        self._text_encoder, self._transformer = text_encoder, transformer
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __getitem__(self, prompt: str) -> Tensor:
        """Return (L, 2, H, T, D)."""
        if prompt not in self._kept:
            text = self._text_encoder.encode(prompt)
            self._kept[prompt] = self._transformer.encode_prompt(text)
        self._kept.move_to_end(prompt)
        while len(self._kept) > PROMPTS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[prompt]
