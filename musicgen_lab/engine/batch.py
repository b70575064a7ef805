"""`Batch`: the clips of a step side by side, each with its own parameters, prompt and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musicgen_lab.clip import Clip, Failure, Provenance
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.engine.sampler import SamplingParameters
from musicgen_lab.request import GenerationRequest


@dataclass(eq=False)
class Generation:
    """A clip in the making.

    Attributes
    ----------
    ticket : int
        The engine's number for it.
    request : GenerationRequest
    slot : int
        Its place in the engine's tables.
    frames, steps : int
        Codec frames and LM steps of the whole clip.
    prompt_tokens : int
        Of its prompt, for the text encoder.
    spent_s : float
        Its share of the engine's time so far: a step's time is shared by the clips in it.
    steps_done : int
    """

    ticket: int
    request: GenerationRequest
    slot: int
    frames: int
    steps: int
    prompt_tokens: int
    spent_s: float
    steps_done: int = 0

    def finish(
        self, sound: Tensor, sample_rate: int, provenance: Provenance, *, finite: bool
    ) -> Clip | Failure:
        """Return the clip, or a failure where a number is not finite.

        Parameters
        ----------
        sound : Tensor
            (channels, n)
        sample_rate : int
            In Hz.
        provenance : Provenance
        finite : bool
            Whether the logits of all steps were.
        """
        samples = sound.numpy().astype(np.float32, copy=False)
        if not finite or not np.isfinite(samples).all():
            return self.fail(ArithmeticError("the model's output is not finite"))
        return Clip(self.request, samples, sample_rate, provenance, self.spent_s)

    def fail(self, error: Exception) -> Failure:
        """Return the failure that an error is for this clip."""
        return Failure.from_error(self.request, error, self.spent_s)


class Batch:
    """The clips that take a step together; made anew when one comes or goes.

    Classifier-free guidance takes two rows, with the prompt and without. A clip whose coefficient
    is 1 needs only the first, one whose coefficient is 0 only the second.

    Parameters
    ----------
    generations : sequence of Generation
        In the order of their slots.
    slots : int
        Slots of the engine: a clip's rows in the cache are its slot, and `slots` further on.
    device : torch.device
    """

    def __init__(self, generations: Sequence[Generation], slots: int, device: torch.device) -> None:
        def tensor(values: Sequence[float], dtype: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        requests = [generation.request for generation in generations]
        prompted = [i for i, request in enumerate(requests) if request.cfg_coef != 0]
        unprompted = [i for i, request in enumerate(requests) if request.cfg_coef != 1]
        clip_of_row = prompted + unprompted
        row_with = {clip: row for row, clip in enumerate(prompted)}
        row_without = {clip: len(prompted) + row for row, clip in enumerate(unprompted)}
        blocks = [generations[i].slot for i in prompted]
        blocks += [slots + generations[i].slot for i in unprompted]

        self.generations = list(generations)
        self.slots = tensor([generation.slot for generation in generations])  # (n,)
        self.frames = tensor([generation.frames for generation in generations])  # (n,)
        self.positions = tensor([generation.steps_done for generation in generations])  # (n,)
        self.parameters = SamplingParameters(
            temperature=tensor([request.temperature for request in requests], torch.float32),
            top_k=tensor([request.top_k for request in requests]),
            top_p=tensor([request.top_p for request in requests], torch.float32),
            cfg_coef=tensor([request.cfg_coef for request in requests], torch.float32),
        )
        self._clip_of_row = tensor(clip_of_row)  # (B,)
        # Where a clip has one row only, both names lead to it, and guidance leaves it as it is.
        clips = range(len(requests))
        self._row_with = tensor([row_with.get(i, row_without.get(i, 0)) for i in clips])  # (n,)
        self._row_without = tensor([row_without.get(i, row_with.get(i, 0)) for i in clips])  # (n,)
        self._block_tables = tensor(blocks)[:, None]  # (B, 1) in the cache
        slot_of: dict[str, int] = {}  # whose keys all rows of a prompt read, as they stay at hand
        for generation in generations:
            slot_of.setdefault(generation.request.prompt, generation.slot)
        self._prompt_spans = AttentionSpans(
            tensor([slot_of[requests[i].prompt] for i in prompted])[:, None],
            tensor([generations[i].prompt_tokens for i in prompted]),
        )

    def rows(self, tokens: Tensor) -> StepRows:
        """Lay out a step: (n, K) tokens, one row per clip, to the rows of the transformer."""
        return StepRows(
            tokens=tokens[self._clip_of_row],
            spans=AttentionSpans(self._block_tables, self.positions[self._clip_of_row] + 1),
            prompt_spans=self._prompt_spans,
        )

    def guide(self, logits: Tensor) -> Tensor:
        """Apply classifier-free guidance: (B, K, card) of all rows to (n, K, card) of clips."""
        without = logits.index_select(0, self._row_without)
        difference = logits.index_select(0, self._row_with) - without
        return without + difference * self.parameters.cfg_coef[:, None, None]

    def advance(self, step_s: float) -> None:
        """Count a step of every clip, and its share of the seconds that the step took."""
        self.positions += 1
        for generation in self.generations:
            generation.steps_done += 1
            generation.spent_s += step_s / len(self.generations)
