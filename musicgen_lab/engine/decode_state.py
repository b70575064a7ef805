"""`DecodeState`: the tables behind a batch, and the step that takes all its clips further."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch, ClipState, Padding, make_batch
from musicgen_lab.engine.cuda_graph import Recording, record_on_cuda
from musicgen_lab.engine.delay import codes_are_due, undelay
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.sampler import draw_uniforms, sample
from musicgen_lab.engine.transformer import Transformer

STEPS_AHEAD = 2  # that the host may start before the device has made them
RECORDED_CLIPS = (1, 8, 16, 32, 64)  # a step is recorded for so many, or for all


@dataclass(frozen=True, eq=False)
class TokenTables:
    """The tokens and random numbers of the clips in the making, by slot.

    Attributes
    ----------
    tokens : Tensor
        (slots, S + 1, K) codes in the delay pattern, the special token first.
    uniforms : Tensor
        (slots, S, K) of float64 in [0, 1).
    finite : Tensor
        (slots,) of bool: whether all logits have been since the clip started.
    delays : Tensor
        (K,)
    special_token : int
    """

    tokens: Tensor
    uniforms: Tensor
    finite: Tensor
    delays: Tensor
    special_token: int


class DecodeState:
    """The clips in the making: their tokens, random numbers, keys and values.

    Parameters
    ----------
    transformer : Transformer
    cache : KeyValueCache
    record : bool
        Record a step and replay it: `engine.cuda_graph`, on CUDA devices.

    Attributes
    ----------
    tables : TokenTables
        With one slot more than clips, which spare clips of a recorded step write to.
    """

    def __init__(self, transformer: Transformer, cache: KeyValueCache, *, record: bool) -> None:
        config, device = transformer.config, transformer.device
        slots = cache.capacity.max_clips + 1
        table = (slots, config.max_steps + 1, config.codebooks)
        self._transformer, self._cache = transformer, cache
        self.tables = TokenTables(
            tokens=torch.full(table, config.special_token, device=device),
            uniforms=torch.zeros(table, dtype=torch.float64, device=device),
            finite=torch.ones(slots, dtype=torch.bool, device=device),
            delays=torch.tensor(config.delays, device=device),
            special_token=config.special_token,
        )
        self._batch: Batch | None = None
        self._recorded = RecordedSteps(self) if record else None
        self._started: deque[torch.cuda.Event] = deque()  # the device's newest steps

    def start(self, clip: ClipState) -> None:
        """Prepare a clip's slot: its random numbers are drawn before its first step."""
        config, tables = self._transformer.config, self.tables
        uniforms = draw_uniforms(clip.request.seed, clip.steps, config.codebooks)
        tables.tokens[clip.slot, 0] = config.special_token
        tables.uniforms[clip.slot, : clip.steps] = uniforms.to(tables.uniforms.device)
        tables.finite[clip.slot] = True

    def set_clips(self, clips: Sequence[ClipState]) -> None:
        """Say which clips take the next steps, in the order of their slots."""
        if self._recorded is not None:
            self._recorded.set_clips(clips)
        else:
            self._batch = make_batch(clips, self.tables.tokens) if clips else None

    def step(self) -> None:
        """Draw the next tokens of every clip."""
        if self._recorded is not None:
            self._recorded.replay()
        elif self._batch is not None:
            self.step_batch(self._batch)
        if self._transformer.device.type == "cuda":
            self._wait_for_older_steps()

    def step_batch(self, batch: Batch) -> None:
        """Take a batch one step further: the whole of decoding."""
        cache = self._cache.tensor
        logits = self._transformer.step(batch.rows, cache, cache)  # (B, K, card)
        if triton_works(logits.device):
            from musicgen_lab.engine.kernels.sampler import draw_tokens_on_cuda

            batch.advance(draw_tokens_on_cuda(logits, batch, self.tables))
        else:
            batch.advance(draw_tokens(logits, batch, self.tables))

    def make_spare_batch(self, clips: int) -> Batch:
        """Return a batch of so many spare clips, in the shape of a recorded step."""
        return make_batch([], self.tables.tokens, self.padding(clips))

    def padding(self, clips: int) -> Padding:
        """Return how a batch is filled up to so many clips."""
        capacity = self._cache.capacity
        width = capacity.count_blocks(self._transformer.config.max_steps)
        return Padding(clips, width, capacity.max_clips, self._cache.spare_block)

    def codes(self, clip: ClipState) -> Tensor:
        """Return a finished clip's codes, without the delay pattern: (K, frames)."""
        tokens = self.tables.tokens[clip.slot, : clip.steps + 1]
        return undelay(tokens, clip.frames, self._transformer.config.delays)

    def finite(self) -> list[bool]:
        """Say of every slot whether all logits have been finite since its clip started."""
        flags: list[bool] = self.tables.finite.tolist()
        return flags

    def _wait_for_older_steps(self) -> None:
        """Keep the host close to the device, so that a request that comes starts soon."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._transformer.device))
        self._started.append(event)
        if len(self._started) > STEPS_AHEAD:
            self._started.popleft().synchronize()


class RecordedSteps:
    """Steps recorded once for a few numbers of clips, and replayed.

    Each recording has a batch of its own whose tensors stay where they are. They change when clips
    come and go; from then on a step is a single replay, which moves the batch on by itself.

    Parameters
    ----------
    state : DecodeState
    """

    def __init__(self, state: DecodeState) -> None:
        self._state = state
        most = state.padding(0).slot
        self._sizes = [*(n for n in RECORDED_CLIPS if n < most), most]
        self._recordings: dict[int, tuple[Batch, Recording]] = {}
        self._replay: Recording | None = None

    def set_clips(self, clips: Sequence[ClipState]) -> None:
        """Write the clips into the batch of the smallest recording that has room for them."""
        self._replay = None
        if not clips:
            return
        size = next(n for n in self._sizes if n >= len(clips))
        if size not in self._recordings:
            self._recordings[size] = self._record(size)
        batch, self._replay = self._recordings[size]
        filled = make_batch(clips, self._state.tables.tokens, self._state.padding(size))
        for kept, given in zip(batch.tensors(), filled.tensors(), strict=True):
            kept.copy_(given)

    def replay(self) -> None:
        """Take a step of the clips."""
        if self._replay is not None:
            self._replay()

    def _record(self, size: int) -> tuple[Batch, Recording]:
        """Record a step of spare clips, which may be made any number of times."""
        batch = self._state.make_spare_batch(size)
        device = batch.tokens.device
        return batch, record_on_cuda(device, lambda: self._state.step_batch(batch))


def draw_tokens(logits: Tensor, batch: Batch, tables: TokenTables) -> Tensor:
    """Draw the next tokens of every clip and write them into its table.

    Parameters
    ----------
    logits : Tensor
        (B, K, card) of float32, of all rows.
    batch : Batch
        Of n clips.
    tables : TokenTables

    Returns
    -------
    Tensor
        (n, K) tokens.
    """
    slots, positions = batch.slot_ids, batch.positions
    guided = batch.guide(logits)  # (n, K, card)
    tables.finite[slots] &= guided.sum(dim=(1, 2)).isfinite()  # if each is, so is the sum
    drawn = sample(guided, batch.parameters, tables.uniforms[slots, positions])
    due = codes_are_due(positions, batch.frames, tables.delays)
    tokens = torch.where(due, drawn, tables.special_token)
    tables.tokens[slots, positions + 1] = tokens
    return tokens
