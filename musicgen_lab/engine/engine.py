"""`Engine`: batched generation of clips with different parameters.

Every clip has its own prompts, duration, temperature, top_k, top_p, cfg_coef and seed, and may
begin with given codes. A finished clip frees its slot, and a waiting request takes it at the next
step (continuous batching), so mixed durations need no padding and requests can be added while
others run. A clip longer than the model's window is made in windows, in the memory of one; the
given codes of a window are read in chunks, one a step (chunked prefill).

A clip's samples are equal bit for bit alone, in any batch, in any order, joining late, and beside a
longer prompt: linear layers, normalisation and sampling give a row the same bits independent of the
other rows (`engine.linear`), attention runs over exactly a row's own context and prompt, the given
codes of a clip are read by themselves, and all its random numbers are drawn from its own seed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from musicgen_lab.clip import BEGIN_CONVERTED, PROMPT_UNREAD, Clip, Failure, Provenance
from musicgen_lab.engine.beginnings import Beginnings
from musicgen_lab.engine.capacity import ROWS_PER_CLIP, Capacity
from musicgen_lab.engine.clip_state import ClipState, shared_time
from musicgen_lab.engine.codec import Codec
from musicgen_lab.engine.decode_state import DecodeState
from musicgen_lab.engine.device import (
    choose_capacity,
    choose_device,
    choose_dtype,
    device_works,
)
from musicgen_lab.engine.forking import check_not_forked
from musicgen_lab.engine.guidance import row_texts
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.model import Model
from musicgen_lab.engine.options import DEFAULT_OPTIONS, EngineOptions
from musicgen_lab.engine.prompts import Prompts
from musicgen_lab.engine.provenance import describe_engine
from musicgen_lab.engine.scheduler import Scheduler
from musicgen_lab.engine.sound_streams import SoundStreams
from musicgen_lab.engine.text import TextEncoder
from musicgen_lab.engine.transformer import Transformer
from musicgen_lab.engine.upload import move_weights
from musicgen_lab.models.config import ModelConfig
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import OnChunk

STAGGERED_SHARE = 0.5  # of the shortest clip, over which the slots are filled


class Engine:
    """A MusicGen model on one device. Created by `Engine.open` or `Engine.from_model`.

    Attributes
    ----------
    config : ModelConfig
        Of the model.
    capacity : Capacity
        The number of clips and of cache blocks that fit in memory.
    max_clips : int
        The most clips made at once.
    transformer : Transformer
    prompts : Prompts
    provenance : Provenance
        Of every clip made here.
    on_progress : callable or None
        Called after every step that samples tokens, with the number of clips in it.
    """

    def __init__(
        self,
        config: ModelConfig,
        transformer: Transformer,
        text_encoder: TextEncoder,
        codec: Codec,
        beginnings: Beginnings,
        *,
        capacity: Capacity,
        cuda_graphs: bool,
    ) -> None:
        self.config, self.capacity, self.max_clips = config, capacity, capacity.max_clips
        self.codebook_size = config.card
        self.on_progress: Callable[[int], None] | None = None
        self.transformer, self._codec = transformer, codec
        recorded = cuda_graphs and triton_works(transformer.device)
        self._cache = KeyValueCache(transformer, capacity)
        self._state = DecodeState(transformer, self._cache, record=recorded)
        self._text_encoder = text_encoder
        self.prompts = Prompts(text_encoder, transformer, self._cache)
        self._beginnings = beginnings
        self._scheduler = Scheduler(
            config, self._cache, self.prompts, beginnings, transformer.prefill_clips
        )
        self._streams = SoundStreams(codec, self._state)
        self._owned: set[int] = set()  # requests that a call of generate waits for
        self._finished: dict[int, Clip | Failure] = {}  # by request id
        self._batched: list[ClipState] = []  # who takes the steps of `_state`
        self._steps_done = 0
        self._stepping = threading.RLock()
        self.provenance = describe_engine(
            transformer,
            max_clips=capacity.max_clips,
            cuda_graphs=recorded,
            codec=codec.identity,
        )

    @classmethod
    def open(cls, folder: Path, options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
        """Open a model folder; see `from_model`."""
        return cls.from_model(Model(folder), options)

    @classmethod
    def from_model(cls, model: Model, options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
        """Load a model onto a device.

        Parameters
        ----------
        model : Model
            Its weights may be in memory already (`Model.load`); it is not modified.
        options : EngineOptions

        Raises
        ------
        ModelUnavailable
            When the parts of the model do not match.
        InvalidRequest
            When the device, the precision or that many clips are not available here.
        BackendUnavailable
            When the process was forked from one that has used an engine.
        """
        check_not_forked()
        device = choose_device(options.device)
        precision = choose_dtype(options.dtype, device)
        config = model.config
        capacity = choose_capacity(options.max_clips, config, device, precision)
        with move_weights(model.lm, device, precision) as weights:
            triton_works(device)  # compiled while the weights are copied
            text_encoder = TextEncoder(model.text_encoder, model.lm, device)
            codec = Codec(
                model.codec,
                channels=config.channels,
                codebooks=config.codebooks,
                card=config.card,
                device=device,
            )
            transformer = Transformer(
                config,
                weights(),
                device=device,
                dtype=precision,
                rows=ROWS_PER_CLIP * capacity.max_clips,
            )
        return cls(
            config,
            transformer,
            text_encoder,
            codec,
            Beginnings(config, model.codec, codec.identity, device),
            capacity=capacity,
            cuda_graphs=options.cuda_graphs,
        )

    @property
    def steps_done(self) -> int:
        """Total steps of all requests so far."""
        return self._steps_done

    @property
    def steps_total(self) -> int:
        """Steps to make for all requests so far, those done included."""
        return self._scheduler.steps_total

    def add_request(self, request: GenerationRequest, on_chunk: OnChunk | None = None) -> int:
        """Queue a request; it starts at the first step at which its memory is free.

        May be called from any thread while another one calls `step`.

        Parameters
        ----------
        request : GenerationRequest
        on_chunk : callable, optional
            Called with the clip's sound, part by part, by the thread that calls `step`.

        Returns
        -------
        int
            Its id, for `abort`.
        """
        check_not_forked()
        with self._streams.adding:
            request_id = self._scheduler.add_request(request)
            if on_chunk is not None:
                self._streams.add(request_id, on_chunk)
        return request_id

    def count_steps(self, request: GenerationRequest) -> int:
        """Return the steps that a request takes; 0 for one that will be refused."""
        return self._scheduler.count_steps(request)

    def steps_done_of(self, request_id: int) -> int:
        """Return the steps done of a request; 0 while it waits. May be called from any thread."""
        running = self._scheduler.running.copy()
        return next((clip.steps_done for clip in running if clip.request_id == request_id), 0)

    def read_prompt(self, prompt: str) -> PromptTokens:
        """Return what the text encoder reads of a prompt. May be called from any thread."""
        return self._text_encoder.read_prompt(prompt)

    def device_works(self) -> bool:
        """Return whether the device still works, which it may not after an error in a step."""
        return device_works(self.transformer.device)

    def abort(self, request_id: int) -> None:
        """Drop a waiting or running request; nothing is returned for it."""
        self._owned.discard(request_id)
        self._scheduler.abort(request_id)

    @torch.inference_mode()
    def step(self) -> list[Clip | Failure]:
        """Run the next step of the running clips, and return those that are finished.

        Returns
        -------
        list of Clip or Failure
            Results of requests queued with `add_request`; empty while all are in progress.
        """
        with self._stepping:
            self._advance()
            done = [i for i in self._finished if i not in self._owned]
            return [self._finished.pop(i) for i in done]

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Clip | Failure]:
        """Make a clip or a failure of every request, in the order of finishing.

        Several threads may call it at once: their requests share the batch. On a CPU, where there
        are more requests than slots, the first ones start one after another over half the length
        of the shortest: clips of equal length then finish one after another too, and whoever stops
        early keeps what is finished. On a GPU a round takes seconds, and nothing is worth half of
        one.

        Parameters
        ----------
        requests : iterable of GenerationRequest
            Taken as slots become free, one ahead.
        """
        check_not_forked()
        source, mine, more = iter(requests), set[int](), True
        first = list(itertools.islice(source, self.max_clips + 1))
        source = itertools.chain(first, source)
        stagger = 0.0  # steps that sample tokens between two starts
        if len(first) > self.max_clips and self.transformer.device.type != "cuda":
            shortest = min(self.count_steps(request) for request in first)
            stagger = STAGGERED_SHARE * shortest / self.max_clips
        started = steps = 0
        try:
            while more or mine:
                while (
                    more
                    and self._scheduler.unfinished < self.max_clips
                    and (not mine or started >= self.max_clips or started * stagger <= steps)
                ):
                    request = next(source, None)
                    more = request is not None
                    if request is not None:
                        mine.add(self._add_owned(request))
                        started += 1
                before = self._steps_done
                for request_id, result in self._step_for(mine):
                    mine.remove(request_id)
                    yield result
                steps += self._steps_done > before  # prefill alone brings no clip further
        finally:
            for request_id in mine:  # the caller stopped iterating
                self.abort(request_id)

    def _advance(self) -> None:
        """Schedule, run one step, and decode the clips that are complete."""
        self._schedule()
        step = self._scheduler.schedule_step(self._streams)
        if step.prefill:
            self._prefill(step.prefill)
        if step.decoding:
            self._step_batch(step.decoding)
        self._streams.hand_out(self._scheduler.running)
        ended = [clip for clip in self._scheduler.running if clip.ends_window]
        done = [clip for clip in ended if clip.is_complete]
        if step.listened and self.transformer.device.type != "cuda":
            done = done[:1]  # decoding all of them takes a moment on a GPU, but seconds here
        if done:
            self._finished |= self._decode(done)
            for clip in done:
                self._scheduler.finish(clip)
        for clip in ended:
            if not clip.is_complete:
                self._begin(clip, self._state.next_window)
        self._streams.remove(self._finished)

    def _prefill(self, clips: list[ClipState]) -> None:
        """Compute the next chunk of each clip: together, or one by one if that fails."""
        if len(clips) > 1:
            with suppress(Exception), shared_time(clips):
                self._state.prefill(clips)
                return
        for clip in clips:
            self._compute([clip], partial(self._state.prefill, [clip]))

    def _step_batch(self, clips: list[ClipState]) -> None:
        """Sample the next tokens of clips."""

        def sample() -> None:
            if clips != self._batched:
                self._state.set_clips(clips)
                self._batched = clips
            self._state.step()

        if self._compute(clips, sample):
            for clip in clips:
                clip.steps_done += 1
                clip.position += 1
            self._report(len(clips))

    def _compute(self, clips: list[ClipState], compute: Callable[[], None]) -> bool:
        """Compute something for clips, which share its time, and all of which fail if it fails.

        Waiting requests are not affected, by a lack of memory for example. Returns whether it
        succeeded.
        """
        try:
            with shared_time(clips):
                compute()
        except Exception as error:
            self._finished |= {clip.request_id: clip.fail(error) for clip in clips}
            for clip in clips:
                self._scheduler.finish(clip)
            return False
        return True

    def _schedule(self) -> None:
        """Drop aborted requests and start waiting ones."""
        aborted = self._scheduler.drop_aborted()
        self._finished = {i: r for i, r in self._finished.items() if i not in aborted}
        started, failures = self._scheduler.schedule()
        self._finished |= failures
        for clip in started:
            self._begin(clip, self._state.start)
        self._streams.remove([*aborted, *self._finished])

    def _begin(self, clip: ClipState, begin: Callable[[ClipState], None]) -> None:
        """Begin a window of a clip."""
        self._batched = []  # its rows are at another step
        self._compute([clip], partial(begin, clip))

    def _decode(self, done: list[ClipState]) -> dict[int, Clip | Failure]:
        """Decode finished tokens to audio."""
        with shared_time(done):
            codes = [self._state.codes(clip) for clip in done]
            sounds = self._codec.decode_each(codes)
        finite = self._state.finite()
        return {
            clip.request_id: clip.fail(sound)
            if isinstance(sound, Exception)
            else self._finish(clip, sound, codes_of_clip, finite=finite[clip.slot])
            for clip, sound, codes_of_clip in zip(done, sounds, codes, strict=True)
        }

    def _finish(
        self, clip: ClipState, sound: Tensor, codes: Tensor, *, finite: bool
    ) -> Clip | Failure:
        """Return the result of a clip, without what it began with if that is not wanted."""
        first_sample = clip.first_frame * self._codec.samples_per_frame
        codes, sound = codes[:, clip.first_frame :], sound[:, first_sample:]
        provenance, rate = self._provenance_of(clip), self._codec.sample_rate
        return clip.finish(sound, codes, rate, provenance, finite=finite)

    def _provenance_of(self, clip: ClipState) -> Provenance:
        """Return the provenance of a clip.

        It includes what of its prompts the text encoder cannot read, and how the sound that it
        begins with was converted.
        """
        unread = [
            word
            for text in row_texts(clip.request)
            for word in self._text_encoder.read_prompt(text).unread
        ]
        notes = {
            PROMPT_UNREAD: ", ".join(dict.fromkeys(unread)),
            BEGIN_CONVERTED: self._beginnings.describe(clip.request),
        }
        details = {name: note for name, note in notes.items() if note}
        return replace(self.provenance, details={**self.provenance.details, **details})

    def _report(self, clips: int) -> None:
        self._steps_done += clips
        if self.on_progress is not None:
            self.on_progress(clips)

    def _add_owned(self, request: GenerationRequest) -> int:
        with self._stepping:  # so that no other thread finishes it before it is owned
            request_id = self.add_request(request)
            self._owned.add(request_id)
            return request_id

    @torch.inference_mode()
    def _step_for(self, mine: set[int]) -> list[tuple[int, Clip | Failure]]:
        """Return the finished ones of a caller's requests, stepping once if there are none."""
        with self._stepping:
            if not mine & self._finished.keys():
                self._advance()
            done = [(i, self._finished.pop(i)) for i in sorted(mine & self._finished.keys())]
            self._owned -= {request_id for request_id, _ in done}
            return done
