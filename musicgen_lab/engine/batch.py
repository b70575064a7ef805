"""`Batch`: the tensors of one step over clips of different parameters, prompts and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from musicgen_lab.clip import Clip, Failure, Provenance
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.engine.sampler import SamplingParameters
from musicgen_lab.request import GenerationRequest


@dataclass(eq=False)
class ClipState:
    """A running clip.

    Attributes
    ----------
    request_id : int
    request : GenerationRequest
    slot : int
        Its row in the tables of `DecodeState`.
    frames, steps : int
        Codec frames and LM steps of the whole clip.
    row_blocks : list of list of int
        Cache blocks of each of its rows: the conditional row first, then the unconditional one; a
        clip may have either or both.
    prompt_blocks : list of int
        Cache blocks of its prompt, which other clips may share; empty without a conditional row.
    prompt_tokens : int
        The number of the prompt's tokens.
    spent_s : float
        Its share of the engine's time so far: a step's time is divided among its clips.
    steps_done : int
    """

    request_id: int
    request: GenerationRequest
    slot: int
    frames: int
    steps: int
    row_blocks: list[list[int]]
    prompt_blocks: list[int]
    prompt_tokens: int
    spent_s: float = 0.0
    steps_done: int = 0

    def finish(
        self, sound: Tensor, sample_rate: int, provenance: Provenance, *, finite: bool
    ) -> Clip | Failure:
        """Return the clip, or a failure if a number is not finite.

        Parameters
        ----------
        sound : Tensor
            (channels, n)
        sample_rate : int
            In Hz.
        provenance : Provenance
        finite : bool
            Whether the logits of all steps were finite.
        """
        samples = sound.numpy().astype(np.float32, copy=False)
        if not finite or not np.isfinite(samples).all():
            return self.fail(ArithmeticError("the model's output is not finite"))
        return Clip(self.request, samples, sample_rate, provenance, self.spent_s)

    def fail(self, error: Exception) -> Failure:
        """Return this clip's failure for an error."""
        return Failure.from_error(self.request, error, self.spent_s)


def has_prompt_row(request: GenerationRequest) -> bool:
    """Return whether a clip needs the conditional row, which cfg_coef 0 does not use."""
    return request.cfg_coef != 0


def has_free_row(request: GenerationRequest) -> bool:
    """Return whether a clip needs the unconditional row, which cfg_coef 1 does not use."""
    return request.cfg_coef != 1


@dataclass(frozen=True)
class Padding:
    """How a batch is padded to the shape of a recorded step.

    Attributes
    ----------
    clips : int
        The number of clips, padding included; there are twice as many rows.
    blocks : int
        Width of its block tables.
    slot, block : int
        Where the padding's clips and rows write to; never read.
    """

    clips: int
    blocks: int
    slot: int
    block: int


@dataclass(frozen=True, eq=False)
class Batch:
    """The tensors of a step: n clips, and their B rows in the transformer.

    Classifier-free guidance takes a conditional and an unconditional row per clip. With a
    coefficient of 1 there is only the first, with 0 only the second; `row_with` and `row_without`
    are then the same row, which guidance leaves unchanged.

    Attributes
    ----------
    slot_ids, frames : Tensor
        (n,) the slot and the total codec frames of each clip.
    parameters : SamplingParameters
        Of n clips.
    row_with, row_without : Tensor
        (n,) each clip's rows.
    clip_of_row : Tensor
        (B,)
    tokens : Tensor
        (B, K) the latest tokens of every row.
    spans, prompt_spans : AttentionSpans
        As in `StepRows`.
    advancing : Tensor
        (B,) 1, or 0 for the padding's rows.
    """

    slot_ids: Tensor
    frames: Tensor
    parameters: SamplingParameters
    row_with: Tensor
    row_without: Tensor
    clip_of_row: Tensor
    tokens: Tensor
    spans: AttentionSpans
    prompt_spans: AttentionSpans
    advancing: Tensor

    @property
    def positions(self) -> Tensor:
        """(n,) the steps done of each clip."""
        return self.spans.context_lens[self.row_with] - 1

    @property
    def rows(self) -> StepRows:
        """The rows of the step, for the transformer."""
        return StepRows(self.tokens, self.spans, self.prompt_spans)

    def guide(self, logits: Tensor) -> Tensor:
        """Apply classifier-free guidance: (B, K, card) of all rows to (n, K, card) of clips."""
        without = logits.index_select(0, self.row_without)
        difference = logits.index_select(0, self.row_with) - without
        return without + difference * self.parameters.cfg_coef[:, None, None]

    def advance(self, tokens: Tensor) -> None:
        """Advance to the next step, with the (n, K) tokens sampled in this one."""
        self.tokens.copy_(tokens[self.clip_of_row])
        self.spans.context_lens.add_(self.advancing)

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in a fixed order."""
        parameters = self.parameters
        return [
            *(self.slot_ids, self.frames),
            *(parameters.temperature, parameters.top_k, parameters.top_p, parameters.cfg_coef),
            *(self.row_with, self.row_without, self.clip_of_row, self.tokens),
            *(self.spans.block_tables, self.spans.context_lens),
            *(self.prompt_spans.block_tables, self.prompt_spans.context_lens),
            self.advancing,
        ]


@dataclass
class _Rows:
    """Rows as lists, before conversion to tensors."""

    clips: list[int] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    lens: list[int] = field(default_factory=list)
    advancing: list[int] = field(default_factory=list)

    def add(self, clip: int, blocks: list[int], context_len: int, advancing: int) -> int:
        """Add a row and return its number."""
        self.clips.append(clip)
        self.blocks.append(blocks)
        self.lens.append(context_len)
        self.advancing.append(advancing)
        return len(self.clips) - 1


def make_batch(clips: Sequence[ClipState], tokens: Tensor, padding: Padding | None = None) -> Batch:
    """Return the batch of running clips.

    Parameters
    ----------
    clips : sequence of ClipState
        In the order of their slots.
    tokens : Tensor
        (slots, S + 1, K) of `DecodeState`, with the latest tokens of every clip.
    padding : Padding or None
        For a recorded step: every row then has a prompt length, 0 for those without a prompt.
    """
    device = tokens.device

    def tensor(values: Sequence[object], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    requests = [clip.request for clip in clips]
    rows, prompts = _Rows(), _Rows()
    with_prompt: dict[int, int] = {}
    without: dict[int, int] = {}
    for index, clip in enumerate(clips):
        if has_prompt_row(clip.request):
            length = clip.steps_done + 1
            with_prompt[index] = rows.add(index, clip.row_blocks[0], length, 1)
            prompts.add(index, clip.prompt_blocks, clip.prompt_tokens, 0)
    for index, clip in enumerate(clips):
        if has_free_row(clip.request):
            without[index] = rows.add(index, clip.row_blocks[-1], clip.steps_done + 1, 1)
    row_with = [with_prompt.get(i, without.get(i, 0)) for i in range(len(clips))]
    row_without = [without.get(i, with_prompt.get(i, 0)) for i in range(len(clips))]
    slot_ids, frames = [clip.slot for clip in clips], [clip.frames for clip in clips]
    temperature, top_k = [r.temperature for r in requests], [r.top_k for r in requests]
    top_p, cfg_coef = [r.top_p for r in requests], [r.cfg_coef for r in requests]
    if padding is not None:
        spare_clips = padding.clips - len(clips)
        slot_ids += [padding.slot] * spare_clips
        for values in (frames, top_k):
            values += [0] * spare_clips
        for numbers in (temperature, top_p, cfg_coef):
            numbers += [0.0] * spare_clips
        while len(rows.clips) < 2 * padding.clips:
            rows.add(padding.clips - 1, [padding.block], 1, 0)
        while len(prompts.clips) < 2 * padding.clips:
            prompts.add(0, [padding.block], 0, 0)  # attention over no keys gives zeros
        for clip_rows in (row_with, row_without):
            clip_rows += [2 * padding.clips - 1] * spare_clips
    width = max(map(len, rows.blocks + prompts.blocks)) if padding is None else padding.blocks

    def table(blocks: list[list[int]]) -> Tensor:
        filled = [each + [each[0]] * (width - len(each)) for each in blocks]
        return tensor(filled).view(len(blocks), width)

    clip_of_row, context_lens = tensor(rows.clips), tensor(rows.lens)
    slot_tensor = tensor(slot_ids)
    return Batch(
        slot_ids=slot_tensor,
        frames=tensor(frames),
        parameters=SamplingParameters(
            temperature=tensor(temperature, torch.float32),
            top_k=tensor(top_k),
            top_p=tensor(top_p, torch.float32),
            cfg_coef=tensor(cfg_coef, torch.float32),
        ),
        row_with=tensor(row_with),
        row_without=tensor(row_without),
        clip_of_row=clip_of_row,
        tokens=tokens[slot_tensor[clip_of_row], context_lens - 1],  # (B, K)
        spans=AttentionSpans(table(rows.blocks), context_lens),
        prompt_spans=AttentionSpans(table(prompts.blocks), tensor(prompts.lens)),
        advancing=tensor(rows.advancing),
    )
