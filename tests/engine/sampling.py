"""A step's sampling by itself: clips of any parameters, with logits that are given."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch, ClipState, make_batch
from musicgen_lab.engine.decode_state import TokenTables
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
        table = (len(self.requests) + 1, self.frames + codebooks, codebooks)
        generator = torch.Generator().manual_seed(self.seed)
        uniforms = torch.rand(table, generator=generator, dtype=torch.float64)
        tables = TokenTables(
            tokens=torch.full(table, card, device=device),
            uniforms=uniforms.to(device),
            finite=torch.ones(table[0], dtype=torch.bool, device=device),
            delays=torch.arange(codebooks, device=device),
            special_token=card,
        )
        clips = [
            ClipState(
                request_id=slot,
                request=GenerationRequest(prompt="x", **fields),
                slot=slot,
                frames=self.frames,
                steps=self.frames + codebooks - 1,
                row_blocks=[[0], [0]],
                prompt_blocks=[0],
                prompt_tokens=1,
                steps_done=self.steps_done,
            )
            for slot, fields in enumerate(self.requests)
        ]
        return self.logits.to(device), make_batch(clips, tables.tokens), tables
