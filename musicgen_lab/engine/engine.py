"""`Engine`: many different clips in one batch, each as if it were alone.

Every row has its own prompt, duration, temperature, top_k, top_p, cfg_coef and seed. A clip leaves
when it is finished and a waiting one takes its slot between two steps, so a batch of mixed
durations wastes nothing and requests can come while others run.

A clip's samples are the same bit for bit alone, in any batch, in any order, joining late, and
beside a longer prompt: linear layers, normalisation and sampling give a row the same bits whatever
stands beside it (`engine.linear`), attention runs over exactly a row's own length and prompt, and
all its random numbers are drawn from its own seed before it starts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine.batch import Batch, Generation
from musicgen_lab.engine.codec import Codec
from musicgen_lab.engine.config import ModelConfig
from musicgen_lab.engine.device import (
    ROWS_PER_SLOT,
    choose_device,
    choose_dtype,
    choose_slots,
    device_works,
)
from musicgen_lab.engine.model import Model
from musicgen_lab.engine.prompts import Prompts
from musicgen_lab.engine.provenance import describe_engine
from musicgen_lab.engine.slots import Slots
from musicgen_lab.engine.text import TextEncoder
from musicgen_lab.engine.transformer import Transformer
from musicgen_lab.engine.triton_support import triton_works
from musicgen_lab.engine.upload import move_weights
from musicgen_lab.request import GenerationRequest


class Engine:
    """A MusicGen on one device of this process. Made by `Engine.open` or `Engine.from_model`.

    Attributes
    ----------
    config : ModelConfig
        Of the model.
    slots : int
        Clips made at once.
    transformer : Transformer
    prompts : Prompts
    provenance : Provenance
        What every clip carries.
    on_progress : callable or None
        Called after every step with the number of clips that it took further.
    """

    def __init__(
        self,
        config: ModelConfig,
        transformer: Transformer,
        text_encoder: TextEncoder,
        codec: Codec,
        *,
        slots: int,
        cuda_graphs: bool,
    ) -> None:
        self.config, self.slots = config, slots
        self.on_progress: Callable[[int], None] | None = None
        self.transformer, self._codec = transformer, codec
        recorded = cuda_graphs and triton_works(transformer.device)
        self._slots = Slots(transformer, slots, record=recorded)
        self.prompts = Prompts(text_encoder, transformer)
        self._batch: Batch | None = None
        self._waiting: deque[tuple[int, GenerationRequest]] = deque()
        self._cancelled: set[int] = set()
        self._owned: set[int] = set()  # tickets that a call of generate waits for
        self._finished: dict[int, Clip | Failure] = {}
        self._tickets = 0
        self._steps_done = self._steps_total = 0
        self._adding, self._stepping = threading.Lock(), threading.RLock()
        self.provenance = describe_engine(transformer, slots=slots, cuda_graphs=recorded)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        slots: int | Literal["auto"] = "auto",
        cuda_graphs: bool = True,
    ) -> Engine:
        """Open a model folder; see `from_model` for the options."""
        return cls.from_model(
            Model(folder), device=device, dtype=dtype, slots=slots, cuda_graphs=cuda_graphs
        )

    @classmethod
    def from_model(
        cls,
        model: Model,
        *,
        device: str = "auto",
        dtype: str = "auto",
        slots: int | Literal["auto"] = "auto",
        cuda_graphs: bool = True,
    ) -> Engine:
        """Put a model on a device.

        Parameters
        ----------
        model : Model
            Its weights may be in memory already (`Model.load`); it is not changed.
        device : str
            "auto", "cpu", "cuda" or any other of torch's.
        dtype : {"auto", "float32", "bfloat16", "float16"}
            "auto" is bfloat16 on a GPU that has it, float32 elsewhere.
        slots : int or "auto"
            Clips made at once; "auto" takes as many as the memory holds, at most 32.
        cuda_graphs : bool
            Whether a step is recorded once and replayed, on a CUDA device.

        Raises
        ------
        ModelUnavailable
            When the parts of the model do not fit each other.
        InvalidRequest
            When the device, the precision or that many slots cannot be had here.
        """
        place = choose_device(device)
        precision = choose_dtype(dtype, place)
        config = model.config
        chosen = choose_slots(slots, config, model.lm, place, precision)
        with move_weights(model.lm, place, precision) as weights:
            triton_works(place)  # compiled while the weights are on their way
            text_encoder = TextEncoder(model.text_encoder, model.lm, place)
            codec = Codec(
                model.codec,
                channels=config.channels,
                codebooks=config.codebooks,
                card=config.card,
                device=place,
            )
            transformer = Transformer(
                config, weights(), device=place, dtype=precision, rows=ROWS_PER_SLOT * chosen
            )
        return cls(config, transformer, text_encoder, codec, slots=chosen, cuda_graphs=cuda_graphs)

    @property
    def steps_done(self) -> int:
        """Steps made for all requests so far."""
        return self._steps_done

    @property
    def steps_total(self) -> int:
        """Steps to make for all requests so far, those done included."""
        return self._steps_total

    def add(self, request: GenerationRequest) -> int:
        """Queue a request; it starts at the next step that has a free slot.

        May be called from any thread, while another one steps.

        Returns
        -------
        int
            A ticket, for `cancel`.
        """
        with self._adding:
            self._tickets += 1
            self._waiting.append((self._tickets, request))
            self._steps_total += self.config.count_steps(request.duration)
            return self._tickets

    def count_steps(self, request: GenerationRequest) -> int:
        """Return the steps that a request takes."""
        return self.config.count_steps(request.duration)

    def steps_done_of(self, ticket: int) -> int:
        """Return the steps made for a request so far; 0 while it waits. From any thread."""
        batch = self._batch
        generations = [] if batch is None else batch.generations
        return next((g.steps_done for g in generations if g.ticket == ticket), 0)

    def device_works(self) -> bool:
        """Say whether the device still computes, which it may not after an error of a step."""
        return device_works(self.transformer.device)

    def cancel(self, ticket: int) -> None:
        """Drop a request, wherever it is; nothing is returned for it."""
        with self._adding:
            self._cancelled.add(ticket)
            self._owned.discard(ticket)

    @torch.inference_mode()
    def step(self) -> list[Clip | Failure]:
        """Take one step of every clip, and return those that are finished.

        Returns
        -------
        list of Clip or Failure
            Those of requests that were queued with `add`; empty while all are in the making.
        """
        with self._stepping:
            self._advance()
            done = [ticket for ticket in self._finished if ticket not in self._owned]
            return [self._finished.pop(ticket) for ticket in done]

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Clip | Failure]:
        """Make a clip or a failure of every request, in the order of finishing.

        Several threads may call it at once: their requests share the batch.

        Parameters
        ----------
        requests : iterable of GenerationRequest
            Taken one by one, as slots become free.
        """
        source, mine, more = iter(requests), set[int](), True
        try:
            while more or mine:
                while more and self._has_room():
                    request = next(source, None)
                    more = request is not None
                    if request is not None:
                        mine.add(self._add_owned(request))
                for ticket, result in self._step_for(mine):
                    mine.remove(ticket)
                    yield result
        finally:
            for ticket in mine:  # the caller has had enough
                self.cancel(ticket)

    def _advance(self) -> None:
        """Make one step: clips come, all take a step (`Slots.step`), finished ones leave."""
        self._admit()
        batch = self._batch
        if batch is None:
            return
        started_s = time.perf_counter()
        try:
            self._slots.step(batch)
            batch.advance(time.perf_counter() - started_s)
        except Exception as error:  # out of memory, say: those in the batch are lost, not the rest
            self._leave(batch.generations)
            self._finished |= {g.ticket: g.fail(error) for g in batch.generations}
            return
        self._report(len(batch.generations))
        done = [g for g in batch.generations if g.steps_done == g.steps]
        if done:
            self._leave(done)
            self._finished |= self._decode(done)

    def _admit(self) -> None:
        """Let waiting requests take the free slots, and cancelled ones leave."""
        staying = [] if self._batch is None else self._batch.generations
        with self._adding:
            cancelled, self._cancelled = self._cancelled, set()
            self._finished = {t: r for t, r in self._finished.items() if t not in cancelled}
            dropped = [r for t, r in self._waiting if t in cancelled]
            self._waiting = deque(w for w in self._waiting if w[0] not in cancelled)
            leaving = [g for g in staying if g.ticket in cancelled]
            self._steps_total -= sum(
                self.config.count_steps(request.duration) for request in dropped
            )
            self._steps_total -= sum(g.steps - g.steps_done for g in leaving)
            self._leave(leaving)
            taken = set() if self._batch is None else {g.slot for g in self._batch.generations}
            free = [slot for slot in range(self.slots) if slot not in taken]
            admitted = [(slot, *self._waiting.popleft()) for slot in free[: len(self._waiting)]]
        coming = [self._start(slot, ticket, request) for slot, ticket, request in admitted]
        self._join([generation for generation in coming if generation is not None])

    def _start(self, slot: int, ticket: int, request: GenerationRequest) -> Generation | None:
        """Prepare a slot for a request; its failure harms no other."""
        started_s, steps = time.perf_counter(), self.config.count_steps(request.duration)
        try:
            keys_values = self.prompts[request.prompt]
            self._slots.start(slot, request.seed, steps, keys_values)
        except Exception as error:
            elapsed_s = time.perf_counter() - started_s
            failure = Failure.from_error(request, error, elapsed_s)
            self._finished[ticket] = failure
            self._steps_total -= steps
            return None
        frames = self.config.count_frames(request.duration)
        spent_s, tokens = time.perf_counter() - started_s, keys_values.shape[3]
        return Generation(ticket, request, slot, frames, steps, tokens, spent_s)

    def _decode(self, done: list[Generation]) -> dict[int, Clip | Failure]:
        """Turn finished tokens into sound."""
        started_s = time.perf_counter()
        sounds = self._codec.decode_each([self._slots.codes(generation) for generation in done])
        share_s = (time.perf_counter() - started_s) / len(done)
        for generation in done:
            generation.spent_s += share_s
        finite, rate = self._slots.finite(), self._codec.sample_rate
        return {
            g.ticket: g.fail(sound)
            if isinstance(sound, Exception)
            else g.finish(sound, rate, self.provenance, finite=finite[g.slot])
            for g, sound in zip(done, sounds, strict=True)
        }

    def _join(self, coming: list[Generation]) -> None:
        if coming:
            staying = [] if self._batch is None else self._batch.generations
            self._batch = self._slots.batch(staying + coming)

    def _leave(self, leaving: list[Generation]) -> None:
        if leaving and self._batch is not None:
            staying = [g for g in self._batch.generations if g not in leaving]
            self._batch = self._slots.batch(staying)

    def _report(self, clips: int) -> None:
        self._steps_done += clips
        if self.on_progress is not None:
            self.on_progress(clips)

    def _has_room(self) -> bool:
        """Say whether a slot is free that no waiting request will take."""
        with self._adding:
            taken = 0 if self._batch is None else len(self._batch.generations)
            return taken + len(self._waiting) < self.slots

    def _add_owned(self, request: GenerationRequest) -> int:
        with self._stepping:  # so that no other thread finishes it before it is owned
            ticket = self.add(request)
            self._owned.add(ticket)
            return ticket

    @torch.inference_mode()
    def _step_for(self, mine: set[int]) -> list[tuple[int, Clip | Failure]]:
        """Return what is finished of one caller's tickets, stepping once if nothing is yet."""
        with self._stepping:
            if not mine & self._finished.keys():
                self._advance()
            done = [(t, self._finished.pop(t)) for t in sorted(mine & self._finished.keys())]
            self._owned -= {ticket for ticket, _ in done}
            return done
