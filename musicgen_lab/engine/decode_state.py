"""`DecodeState`: the token tables of all slots, and the decoding step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from musicgen_lab.engine.batch import Batch, Padding, make_batch, make_prefill
from musicgen_lab.engine.capacity import ROWS_PER_CLIP, ROWS_PER_CLIP_MAX
from musicgen_lab.engine.clip_state import ClipState
from musicgen_lab.engine.cuda_graph import Recording, record_on_cuda
from musicgen_lab.engine.delay import UNKNOWN, delay, undelay
from musicgen_lab.engine.guidance import mixes_prompts
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.sampler import draw_uniforms
from musicgen_lab.engine.token_tables import TokenTables, draw_tokens
from musicgen_lab.engine.transformer import Transformer

PREFILL_STEPS = 128  # given steps of a clip at once: a chunk; more would gain next to nothing
STEPS_AHEAD = 2  # steps that the host may launch before the device has finished them
RECORDED_CLIPS = (1, 8, 16, 32, 64)  # batch sizes of recorded steps, besides the maximum


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
    max_clips : int
        The most clips of a step.
    tables : TokenTables
        With one more slot than clips, which the padding of a recorded step writes to.
    """

    def __init__(self, transformer: Transformer, cache: KeyValueCache, *, record: bool) -> None:
        config, device = transformer.config, transformer.device
        self._transformer, self._cache = transformer, cache
        self.max_clips = cache.capacity.max_clips
        slots = self.max_clips + 1
        table = (slots, config.max_steps + 1, config.codebooks)
        self.tables = TokenTables(
            tokens=torch.full(table, config.special_token, device=device),
            uniforms=torch.zeros(table, dtype=torch.float64, device=device),
            finite=torch.ones(slots, dtype=torch.bool, device=device),
        )
        self._batch: Batch | None = None
        self._recorded = RecordedSteps(self) if record else None
        self._started: deque[torch.cuda.Event] = deque()  # of the latest steps

    def start(self, clip: ClipState) -> None:
        """Start a clip in its slot."""
        self.tables.finite[clip.slot] = True
        self._begin_window(clip)

    def next_window(self, clip: ClipState) -> None:
        """Begin the next window of a clip with the codes of the one that is complete."""
        clip.codes = self.codes(clip)
        clip.window_index += 1
        self._begin_window(clip)

    def _begin_window(self, clip: ClipState) -> None:
        """Fill a clip's tables for its window, whose given steps are left to `prefill`.

        A clip's random numbers belong to its codec frames, whichever window makes them, so that a
        clip begins like a shorter one of the same seed.
        """
        config, tables, window = self._transformer.config, self.tables, clip.window
        device = tables.tokens.device
        codes = torch.full((config.codebooks, window.frames), UNKNOWN, device=device)
        codes[:, : window.given] = clip.codes[:, window.first : window.first + window.given]
        tokens = delay(codes, config.delays, config.special_token)  # (S + 1, K)
        tables.tokens[clip.slot, : len(tokens)] = tokens
        uniforms = draw_uniforms(clip.request.seed, window.first + window.end, config.codebooks)
        tables.uniforms[clip.slot, : window.end] = uniforms[window.first :].to(device)
        clip.position = 0

    def prefill(self, clips: Sequence[ClipState]) -> None:
        """Compute the next chunk of the given steps of each clip: their keys and values.

        Chunks begin at multiples of `PREFILL_STEPS`, whenever they are computed, so that a GPU,
        whose last bits may depend on the shape of a product, gives a clip the same ones in any
        company.
        """
        chunks = [
            (clip, range(clip.position, min(clip.position + PREFILL_STEPS, clip.window.start)))
            for clip in clips
        ]
        self._transformer.prefill(make_prefill(chunks, self.tables.tokens), self._cache.tensor)
        for clip, steps in chunks:
            clip.position = steps.stop
        self._wait_for_older_steps()

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

    def make_spare_batch(self, padding: Padding) -> Batch:
        """Return a batch of padding only, in the shape of a recorded step."""
        return make_batch([], self.tables.tokens, padding)

    def padding(self, clips: int, *, one_text: bool, mixing: bool) -> Padding:
        """Return the padding of a batch to a number of clips, each with at most one text or not."""
        capacity = self._cache.capacity
        rows = (
            min(clips * ROWS_PER_CLIP_MAX, capacity.max_rows) if mixing else clips * ROWS_PER_CLIP
        )
        prompted = clips if one_text else rows
        width = capacity.count_blocks(self._transformer.config.max_steps)
        slot, block = capacity.max_clips, self._cache.spare_block
        return Padding(clips, rows, prompted, width, slot, block, mixing)

    def codes(self, clip: ClipState, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the codes of a clip's frames, without the delay pattern: (K, stop - start).

        By default those of all frames whose codes are there.
        """
        window = clip.window
        made = undelay(
            self.tables.tokens[clip.slot], window.frames, self._transformer.config.delays
        )  # (K, frames) of the window, the last of which may not be there yet
        codes = torch.cat([clip.codes[:, : window.first], made], dim=1)
        return codes[:, start : self.complete_frames(clip) if stop is None else stop]

    def complete_frames(self, clip: ClipState) -> int:
        """Return the number of a clip's frames, from its first one, whose codes are all there."""
        made = clip.position - self._transformer.config.delays[-1]
        return clip.window.first + max(made, clip.window.given)

    def finite(self) -> list[bool]:
        """Return for every slot whether all logits since its clip's start were finite."""
        flags: list[bool] = self.tables.finite.tolist()
        return flags

    def _wait_for_older_steps(self) -> None:
        """Keep the host at most `STEPS_AHEAD` steps ahead, so that new requests start soon."""
        if self._transformer.device.type != "cuda":
            return
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
        most = state.max_clips
        self._sizes = [*(n for n in RECORDED_CLIPS if n < most), most]
        self._recordings: dict[Padding, tuple[Batch, Recording]] = {}
        self._replay: Recording | None = None

    def set_clips(self, clips: Sequence[ClipState]) -> None:
        """Write the clips into the batch of the smallest recording that they fit in."""
        self._replay = None
        if not clips:
            return
        size = next(n for n in self._sizes if n >= len(clips))
        one_text = all(sum(row.text != "" for row in clip.rows) <= 1 for clip in clips)
        mixing = any(mixes_prompts(clip.request) for clip in clips)
        padding = self._state.padding(size, one_text=one_text, mixing=mixing)
        if padding not in self._recordings:
            self._recordings[padding] = self._record(padding)
        batch, self._replay = self._recordings[padding]
        filled = make_batch(clips, self._state.tables.tokens, padding)
        for kept, given in zip(batch.tensors(), filled.tensors(), strict=True):
            kept.copy_(given)

    def replay(self) -> None:
        """Run one step of the clips."""
        if self._replay is not None:
            self._replay()

    def _record(self, padding: Padding) -> tuple[Batch, Recording]:
        """Record a step of a batch of padding, which may be run any number of times."""
        batch = self._state.make_spare_batch(padding)
        device = batch.tokens.device
        return batch, record_on_cuda(device, lambda: self._state.step_batch(batch))
