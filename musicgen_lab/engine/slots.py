"""`Slots`: the tables behind a batch, with a place for every clip in the making."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch, Generation
from musicgen_lab.engine.delay import codes_are_due, undelay
from musicgen_lab.engine.device import ROWS_PER_SLOT
from musicgen_lab.engine.graph import StepGraph
from musicgen_lab.engine.sampler import draw_uniforms, sample
from musicgen_lab.engine.transformer import Transformer

PROMPT_TOKENS = 64  # what most prompts stay under; room for longer ones is made in such portions


class Slots:
    """The tokens, random numbers, keys and values of clips in the making.

    Parameters
    ----------
    transformer : Transformer
    count : int
        Clips made at once.
    record : bool
        Record a step and replay it: `engine.graph`, on CUDA devices.

    Attributes
    ----------
    tokens : Tensor
        (count, S + 1, K) codes in the delay pattern, the special token first.
    cache, prompt_cache : Tensor
        Keys and values, from `Transformer.make_cache`: a block for every row, one for every prompt.
    graph : StepGraph or None
        The recorded step.
    """

    def __init__(self, transformer: Transformer, count: int, *, record: bool) -> None:
        config, device = transformer.config, transformer.device
        self.count = count
        self._transformer = transformer
        self.cache = transformer.make_cache(ROWS_PER_SLOT * count + record, config.max_steps)
        self.prompt_cache = transformer.make_cache(count, PROMPT_TOKENS)
        self.graph = self._make_graph() if record else None
        table = (count, config.max_steps + 1, config.codebooks)
        self.tokens = torch.full(table, config.special_token, device=device)  # (slots, S, K)
        self._uniforms = torch.zeros(table, dtype=torch.float64, device=device)  # (slots, S, K)
        self._finite = torch.ones(count, dtype=torch.bool, device=device)  # (slots,)
        self._delays = torch.tensor(config.delays, device=device)  # (K,)

    def start(self, slot: int, seed: int, steps: int, keys_values: Tensor) -> None:
        """Prepare a slot for a clip: its random numbers are drawn before its first step.

        Parameters
        ----------
        slot, seed, steps : int
            Of the clip.
        keys_values : Tensor
            (L, 2, H, T, D) of its prompt.
        """
        config = self._transformer.config
        self.tokens[slot, 0] = config.special_token
        uniforms = draw_uniforms(seed, steps, config.codebooks)
        self._uniforms[slot, :steps] = uniforms.to(self._uniforms.device)
        self._finite[slot] = True
        tokens = keys_values.shape[3]
        self._make_room(tokens)
        self.prompt_cache[:, :, slot, :, :tokens] = keys_values

    def _make_room(self, tokens: int) -> None:
        """Let prompts have so many tokens, and rather more."""
        before, had = self.prompt_cache, self.prompt_cache.shape[4]
        if tokens > had:
            recorded, self.graph = self.graph is not None, None  # it knows the old cache only
            room = PROMPT_TOKENS * math.ceil(tokens / PROMPT_TOKENS)
            self.prompt_cache = self._transformer.make_cache(self.count, room)
            self.prompt_cache[..., :had, :] = before
            self.graph = self._make_graph() if recorded else None

    def _make_graph(self) -> StepGraph:
        rows = ROWS_PER_SLOT * self.count
        return StepGraph(self._transformer, self.cache, self.prompt_cache, rows)

    def batch(self, generations: list[Generation]) -> Batch | None:
        """Lay clips side by side, in the order of their slots; None where there are none."""
        ordered = sorted(generations, key=lambda generation: generation.slot)
        return Batch(ordered, self.count, self._transformer.device) if ordered else None

    def step(self, batch: Batch) -> None:
        """Draw the next tokens of every clip: the whole of decoding."""
        tokens = self.tokens[batch.slots, batch.positions]  # (n, K)
        rows = batch.rows(tokens)
        if self.graph is None:
            all_logits = self._transformer.step(rows, self.cache, self.prompt_cache)
        else:
            all_logits = self.graph.step(rows)
        logits = batch.guide(all_logits)  # (n, K, card)
        self._finite[batch.slots] &= logits.sum(dim=(1, 2)).isfinite()  # if each is, so is the sum
        uniforms = self._uniforms[batch.slots, batch.positions]  # (n, K)
        drawn = sample(logits, batch.parameters, uniforms)
        due = codes_are_due(batch.positions, batch.frames, self._delays)
        special = self._transformer.config.special_token
        self.tokens[batch.slots, batch.positions + 1] = torch.where(due, drawn, special)

    def codes(self, generation: Generation) -> Tensor:
        """Return a finished clip's codes, without the delay pattern: (K, frames)."""
        tokens = self.tokens[generation.slot, : generation.steps + 1]
        return undelay(tokens, generation.frames, self._transformer.config.delays)

    def finite(self) -> list[bool]:
        """Say of every slot whether all logits have been finite since its clip started."""
        flags: list[bool] = self._finite.tolist()
        return flags
