"""`Batch`: the tensors of one step over clips of different parameters, prompts and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from musicgen_lab.engine.clip_state import ClipRow, ClipState
from musicgen_lab.engine.guidance import mixes_prompts, prompt_texts
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.engine.sampler import SamplingParameters


@dataclass(frozen=True)
class Padding:
    """How a batch is padded to the shape of a recorded step.

    Attributes
    ----------
    clips, rows, prompted : int
        The number of clips, of rows, and of rows with a text, padding included.
    blocks : int
        Width of its block tables.
    slot, block : int
        Where the padding's clips and rows write to; never read.
    mixing : bool
        Whether clips may mix two prompts.
    """

    clips: int
    rows: int
    prompted: int
    blocks: int
    slot: int
    block: int
    mixing: bool


@dataclass(frozen=True, eq=False)
class Mixing:
    """The second prompts of a batch in which clips mix two.

    Attributes
    ----------
    row_with : Tensor
        (n,) each clip's row with its second prompt; that of its only prompt if it has one.
    share : Tensor
        (n,) of float32, the share of the second prompt; 0 if a clip has one prompt.
    """

    row_with: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """The tensors of a step: n clips, and their B rows in the transformer.

    Classifier-free guidance takes a row with the prompt and one without it, or with the negative
    prompt. With a coefficient of 1 there is only the first, with 0 only the second; `row_with` and
    `row_without` are then the same row, which guidance leaves unchanged. Two prompts that are mixed
    have a row each (`engine.guidance`).

    Attributes
    ----------
    slot_ids : Tensor
        (n,) the slot of each clip.
    parameters : SamplingParameters
        Of n clips.
    row_with, row_without : Tensor
        (n,) each clip's rows.
    mixing : Mixing or None
        If any clip mixes two prompts.
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
    parameters: SamplingParameters
    row_with: Tensor
    row_without: Tensor
    mixing: Mixing | None
    clip_of_row: Tensor
    tokens: Tensor
    spans: AttentionSpans
    prompt_spans: AttentionSpans
    advancing: Tensor

    @property
    def positions(self) -> Tensor:
        """(n,) the steps of each clip's window so far."""
        return self.spans.context_lens[self.row_with] - 1

    @property
    def rows(self) -> StepRows:
        """The rows of the step, for the transformer."""
        return StepRows(self.tokens, self.spans, self.prompt_spans)

    def guide(self, logits: Tensor) -> Tensor:
        """Apply classifier-free guidance: (B, K, card) of all rows to (n, K, card) of clips.

        Mixing the logits of two prompts before guidance is the same as mixing guided ones: it is
        linear, and the coefficient and the other row are the same for both.
        """
        given = logits.index_select(0, self.row_with)
        if self.mixing is not None:
            share = self.mixing.share[:, None, None]
            given = (1 - share) * given + share * logits.index_select(0, self.mixing.row_with)
        without = logits.index_select(0, self.row_without)
        return without + (given - without) * self.parameters.cfg_coef[:, None, None]

    def advance(self, tokens: Tensor) -> None:
        """Advance to the next step, with the (n, K) tokens sampled in this one."""
        self.tokens.copy_(tokens[self.clip_of_row])
        self.spans.context_lens.add_(self.advancing)

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in a fixed order."""
        parameters, mixing = self.parameters, self.mixing
        return [
            self.slot_ids,
            *(parameters.temperature, parameters.top_k, parameters.top_p, parameters.cfg_coef),
            *(self.row_with, self.row_without, self.clip_of_row, self.tokens),
            *(self.spans.block_tables, self.spans.context_lens),
            *(self.prompt_spans.block_tables, self.prompt_spans.context_lens),
            self.advancing,
            *((mixing.row_with, mixing.share) if mixing else ()),
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

    def spans(self, width: int, device: torch.device) -> AttentionSpans:
        """Return the spans of the rows, with tables of a width."""
        table = [each + [each[0]] * (width - len(each)) for each in self.blocks]
        return AttentionSpans(
            torch.tensor(table, dtype=torch.long, device=device).view(len(table), width),
            torch.tensor(self.lens, dtype=torch.long, device=device),
        )


def _texts_first(clips: Sequence[ClipState]) -> Iterator[tuple[int, int, ClipRow]]:
    """Yield the rows of clips with the numbers of clip and row; first those with a text."""
    for with_text in (True, False):
        for index, clip in enumerate(clips):
            for number, row in enumerate(clip.rows):
                if bool(row.text) is with_text:
                    yield index, number, row


def make_batch(clips: Sequence[ClipState], tokens: Tensor, padding: Padding | None = None) -> Batch:
    """Return the batch of running clips.

    Parameters
    ----------
    clips : sequence of ClipState
        In the order of their slots.
    tokens : Tensor
        (slots, S + 1, K) of `TokenTables`, with the latest tokens of every clip.
    padding : Padding or None
        For a recorded step: as many rows then have a prompt length, 0 for those without a prompt.
    """
    device = tokens.device

    def tensor(values: Sequence[object], dtype: torch.dtype = torch.long) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    requests = [clip.request for clip in clips]
    rows, prompts = _Rows(), _Rows()
    numbers: list[dict[int, int]] = [{} for _ in clips]  # of each clip's rows in the batch
    for index, number, row in _texts_first(clips):
        numbers[index][number] = rows.add(index, row.blocks, clips[index].position + 1, 1)
        if row.text:
            prompts.add(index, row.text_blocks, row.text_tokens, 0)
    # A clip's prompts are its first rows, and what it is guided away from is its last one.
    row_with = [each[0] for each in numbers]
    row_without = [
        each[0 if r.cfg_coef == 1 else len(each) - 1]
        for each, r in zip(numbers, requests, strict=True)
    ]
    second = [
        each[len(prompt_texts(r)) - 1] if mixes_prompts(r) else each[0]
        for each, r in zip(numbers, requests, strict=True)
    ]
    share = [r.mix if mixes_prompts(r) else 0.0 for r in requests]
    slot_ids = [clip.slot for clip in clips]
    temperature, top_k = [r.temperature for r in requests], [r.top_k for r in requests]
    top_p, cfg_coef = [r.top_p for r in requests], [r.cfg_coef for r in requests]
    mixing = any(share) if padding is None else padding.mixing
    if padding is not None:
        spare_clips = padding.clips - len(clips)
        slot_ids += [padding.slot] * spare_clips
        top_k += [0] * spare_clips
        for values in (temperature, top_p, cfg_coef, share):
            values += [0.0] * spare_clips
        while len(rows.clips) < padding.rows:
            rows.add(padding.clips - 1, [padding.block], 1, 0)
        while len(prompts.clips) < padding.prompted:
            prompts.add(0, [padding.block], 0, 0)  # attention over no keys gives zeros
        for clip_rows in (row_with, row_without, second):
            clip_rows += [padding.rows - 1] * spare_clips
    width = max(map(len, rows.blocks + prompts.blocks)) if padding is None else padding.blocks
    spans, slot_tensor, clip_of_row = (
        rows.spans(width, device),
        tensor(slot_ids),
        tensor(rows.clips),
    )
    return Batch(
        slot_ids=slot_tensor,
        parameters=SamplingParameters(
            temperature=tensor(temperature, torch.float32),
            top_k=tensor(top_k),
            top_p=tensor(top_p, torch.float32),
            cfg_coef=tensor(cfg_coef, torch.float32),
        ),
        row_with=tensor(row_with),
        row_without=tensor(row_without),
        mixing=Mixing(tensor(second), tensor(share, torch.float32)) if mixing else None,
        clip_of_row=clip_of_row,
        tokens=tokens[slot_tensor[clip_of_row], spans.context_lens - 1],  # (B, K)
        spans=spans,
        prompt_spans=prompts.spans(width, device),
        advancing=tensor(rows.advancing),
    )


def make_prefill(clips: Sequence[tuple[ClipState, range]], tokens: Tensor) -> StepRows:
    """Return several steps of clips at once, whose tokens are all there.

    Parameters
    ----------
    clips : sequence of (ClipState, range)
        Clips and their steps.
    tokens : Tensor
        (slots, S + 1, K) of `TokenTables`.

    Returns
    -------
    StepRows
        All steps of one row, then those of the next; rows with a text first.
    """
    rows, prompts = _Rows(), _Rows()
    taken: list[Tensor] = []
    for index, _, row in _texts_first([clip for clip, _ in clips]):
        clip, steps = clips[index]
        taken.append(tokens[clip.slot, steps.start : steps.stop])
        for step in steps:
            rows.add(index, row.blocks, step + 1, 0)
            if row.text:
                prompts.add(index, row.text_blocks, row.text_tokens, 0)
    width = max(map(len, rows.blocks + prompts.blocks))
    device = tokens.device
    return StepRows(torch.cat(taken), rows.spans(width, device), prompts.spans(width, device))
