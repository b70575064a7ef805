"""A step's sampling by itself: clips of any parameters, with logits that are given."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch, make_batch
from musicgen_lab.engine.clip_state import ClipRow, ClipState
from musicgen_lab.engine.delay import UNKNOWN, delay
from musicgen_lab.engine.guidance import row_texts
from musicgen_lab.engine.token_tables import TokenTables
from musicgen_lab.request import GenerationRequest


@dataclass
class SamplingCase:
    """Clips that are about to draw a step's tokens.

    Attributes
    ----------
    requests : list of dict
        Fields of each clip's request.
    logits : Tensor
        (B, K, card), of all rows.
    seed : int
        Of the uniform numbers.
    steps_done, frames : int
        Of each clip.
    """

    requests: list[dict[str, Any]]
    logits: Tensor
    seed: int = 0
    steps_done: int = 5
    frames: int = 50

    def tensors(self, device: str = "cpu") -> tuple[Tensor, Batch, TokenTables]:
        """Return the logits, the batch and the tables."""
        _, codebooks, card = self.logits.shape
        delays = list(range(codebooks))
        pattern = delay(torch.full((codebooks, self.frames), UNKNOWN), delays, card)
        tokens = pattern.repeat(len(self.requests) + 1, 1, 1)
        tokens[:, : self.steps_done + 1].clamp_(min=0)
        generator = torch.Generator().manual_seed(self.seed)
        uniforms = torch.rand(tokens.shape, generator=generator, dtype=torch.float64)
        tables = TokenTables(
            tokens=tokens.to(device),
            uniforms=uniforms.to(device),
            finite=torch.ones(len(tokens), dtype=torch.bool, device=device),
        )
        clips = []
        for slot, fields in enumerate(self.requests):
            request = GenerationRequest(prompt="x", **fields)
            rows = [ClipRow(text, [0], [0] if text else [], 1) for text in row_texts(request)]
            clips.append(
                ClipState(slot, request, slot, [], rows, tokens[0, :0], position=self.steps_done)
            )
        return self.logits.to(device), make_batch(clips, tables.tokens), tables
