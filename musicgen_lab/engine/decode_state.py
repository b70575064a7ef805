"""`DecodeState`: the token tables of all slots, and the decoding step."""

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

STEPS_AHEAD = 2  # steps that the host may launch before the device has finished them
RECORDED_CLIPS = (1, 8, 16, 32, 64)  # batch sizes of recorded steps, besides the maximum


@dataclass(frozen=True, eq=False)
class TokenTables:
    """The tokens and random numbers of the running clips, by slot.

    Attributes
    ----------
    tokens : Tensor
        (slots, S + 1, K) codes in the delay pattern, the special token first.
    uniforms : Tensor
        (slots, S, K) of float64 in [0, 1).
    finite : Tensor
        (slots,) of bool: whether all logits since the clip's start were finite.
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
    """The decoding state of the running clips: tokens, random numbers, keys and values.

    Parameters
    ----------
    transformer : Transformer
    cache : KeyValueCache
    record : bool
        Whether to record a step as a CUDA graph and replay it (`engine.cuda_graph`).

    Attributes
    ----------
    tables : TokenTables
        With one more slot than clips, which the padding of a recorded step writes to.
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
        self._started: deque[torch.cuda.Event] = deque()  # of the latest steps

    def start(self, clip: ClipState) -> None:
        """Initialise a clip's slot: all its random numbers are drawn before its first step."""
        config, tables = self._transformer.config, self.tables
        uniforms = draw_uniforms(clip.request.seed, clip.steps, config.codebooks)
        tables.tokens[clip.slot, 0] = config.special_token
        tables.uniforms[clip.slot, : clip.steps] = uniforms.to(tables.uniforms.device)
        tables.finite[clip.slot] = True

    def set_clips(self, clips: Sequence[ClipState]) -> None:
        """Set the clips of the next steps, in the order of their slots."""
        if self._recorded is not None:
            self._recorded.set_clips(clips)
        else:
            self._batch = make_batch(clips, self.tables.tokens) if clips else None

    def step(self) -> None:
        """Sample the next tokens of every clip."""
        if self._recorded is not None:
            self._recorded.replay()
        elif self._batch is not None:
            self.step_batch(self._batch)
        if self._transformer.device.type == "cuda":
            self._wait_for_older_steps()

    def step_batch(self, batch: Batch) -> None:
        """Run one step of a batch: transformer, guidance, sampling."""
        cache = self._cache.tensor
        logits = self._transformer.step(batch.rows, cache)  # (B, K, card)
        if triton_works(logits.device):
            from musicgen_lab.engine.kernels.sampler import draw_tokens_on_cuda

            batch.advance(draw_tokens_on_cuda(logits, batch, self.tables))
        else:
            batch.advance(draw_tokens(logits, batch, self.tables))

    def make_spare_batch(self, clips: int) -> Batch:
        """Return a batch of padding only, in the shape of a recorded step."""
        return make_batch([], self.tables.tokens, self.padding(clips))

    def padding(self, clips: int) -> Padding:
        """Return the padding of a batch to a number of clips."""
        capacity = self._cache.capacity
        width = capacity.count_blocks(self._transformer.config.max_steps)
        return Padding(clips, width, capacity.max_clips, self._cache.spare_block)

    def codes(self, clip: ClipState, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the codes of a clip's frames, without the delay pattern: (K, stop - start).

        By default those of all frames of a finished clip.
        """
        tokens = self.tables.tokens[clip.slot, start : clip.steps + 1]
        frames = (clip.frames if stop is None else stop) - start
        return undelay(tokens, frames, self._transformer.config.delays)

    def complete_frames(self, clip: ClipState) -> int:
        """Return the number of a clip's frames, from its first one, whose codes are all made."""
        return max(clip.steps_done - max(self._transformer.config.delays), 0)

    def finite(self) -> list[bool]:
        """Return for every slot whether all logits since its clip's start were finite."""
        flags: list[bool] = self.tables.finite.tolist()
        return flags

    def _wait_for_older_steps(self) -> None:
        """Keep the host at most `STEPS_AHEAD` steps ahead, so that new requests start soon."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._transformer.device))
        self._started.append(event)
        if len(self._started) > STEPS_AHEAD:
            self._started.popleft().synchronize()


class RecordedSteps:
    """Steps recorded for a few batch sizes, and replayed.

    Each recording has a batch whose tensors keep their memory addresses. Their contents are written
    when clips start or finish; a step is then a single replay, which also advances the batch.

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
        """Write the clips into the batch of the smallest recording that they fit in."""
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
        """Run one step of the clips."""
        if self._replay is not None:
            self._replay()

    def _record(self, size: int) -> tuple[Batch, Recording]:
        """Record a step of a batch of padding, which may be run any number of times."""
        batch = self._state.make_spare_batch(size)
        device = batch.tokens.device
        return batch, record_on_cuda(device, lambda: self._state.step_batch(batch))


def draw_tokens(logits: Tensor, batch: Batch, tables: TokenTables) -> Tensor:
    """Sample the next tokens of every clip and write them to its table.

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
    tables.finite[slots] &= guided.sum(dim=(1, 2)).isfinite()  # the sum is finite if each logit is
    drawn = sample(guided, batch.parameters, tables.uniforms[slots, positions])
    due = codes_are_due(positions, batch.frames, tables.delays)
    tokens = torch.where(due, drawn, tables.special_token)
    tables.tokens[slots, positions + 1] = tokens
    return tokens
