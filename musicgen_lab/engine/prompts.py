"""`Prompts`: the cross-attention keys and values of the running clips' prompts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.text import TextEncoder
from musicgen_lab.engine.transformer import Transformer
from musicgen_lab.errors import InvalidRequest

TEXTS_KEPT = 128  # more than a batch of clips with a prompt each has


@dataclass
class _Cached:
    """A prompt's blocks, and its number of users."""

    blocks: list[int]
    clips: int


class Prompts:
    """Keys and values by prompt, shared by clips with the same prompt.

    Parameters
    ----------
    text_encoder : TextEncoder
    transformer : Transformer
    cache : KeyValueCache
    """

    def __init__(
        self, text_encoder: TextEncoder, transformer: Transformer, cache: KeyValueCache
    ) -> None:
        self._text_encoder, self._transformer, self._cache = text_encoder, transformer, cache
        self._texts: OrderedDict[str, Tensor] = OrderedDict()  # (T, dim) of the last few prompts
        self._cached: dict[str, _Cached] = {}

    def count_tokens(self, prompt: str) -> int:
        """Return the number of tokens of a prompt.

        Raises
        ------
        InvalidRequest
            When there are more than a prompt's blocks can hold.
        """
        tokens, most = len(self._text(prompt)), self._transformer.config.max_steps
        if tokens > most:
            raise InvalidRequest(
                f"prompt must have at most {most:,} tokens, got {tokens:,}; shorten it",
                field="prompt",
                value=prompt,
            )
        return tokens

    def missing_blocks(self, prompt: str) -> int:
        """Return how many blocks `acquire` would allocate: none if a clip has the same prompt."""
        if prompt in self._cached:
            return 0
        return self._cache.capacity.count_blocks(self.count_tokens(prompt))

    def acquire(self, prompt: str) -> list[int]:
        """Return the blocks with a prompt's keys and values, for one more clip."""
        if prompt not in self._cached:
            keys_values = self.keys_values(prompt)
            blocks = self._cache.take(keys_values.shape[3])
            try:
                self._cache.write(blocks, keys_values)
            except Exception:
                self._cache.give_back(blocks)
                raise
            self._cached[prompt] = _Cached(blocks, clips=0)
        self._cached[prompt].clips += 1
        return self._cached[prompt].blocks

    def release(self, prompt: str) -> None:
        """Release a prompt for one clip; the last release frees its blocks."""
        cached = self._cached[prompt]
        cached.clips -= 1
        if not cached.clips:
            self._cache.give_back(self._cached.pop(prompt).blocks)

    def keys_values(self, prompt: str) -> Tensor:
        """Return (L, 2, H, T, D) for a prompt of T tokens."""
        return self._transformer.encode_prompt(self._text(prompt))

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            self._texts[prompt] = self._text_encoder.encode(prompt)
        self._texts.move_to_end(prompt)
        while len(self._texts) > TEXTS_KEPT:
            self._texts.popitem(last=False)
        return self._texts[prompt]
