"""`Scheduler`: waiting and running requests, and when a waiting request starts."""

from __future__ import annotations

import threading
import time
from collections import deque

from musicgen_lab.clip import Failure
from musicgen_lab.engine.batch import ClipState, has_free_row, has_prompt_row
from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.prompts import Prompts
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig
from musicgen_lab.request import LATER_DEFAULTS, WINDOW_S, GenerationRequest


class Scheduler:
    """Starts requests first come, first served, each when its memory is free.

    A request needs a slot, the blocks of its whole length, and those of its prompt unless a running
    clip has the same prompt. It takes all of them at its start, so it never runs out of memory, and
    later requests wait behind it, so it never starves. Requests may be added from any thread; all
    else is done by one thread at a time.

    Parameters
    ----------
    config : ModelConfig
    cache : KeyValueCache
    prompts : Prompts

    Attributes
    ----------
    running : list of ClipState
        In the order of their slots.
    steps_total : int
        Steps of all requests so far, except for those that were aborted or failed.
    """

    def __init__(self, config: ModelConfig, cache: KeyValueCache, prompts: Prompts) -> None:
        self._config, self._cache, self._prompts = config, cache, prompts
        self._waiting: deque[tuple[int, GenerationRequest]] = deque()
        self._aborted: set[int] = set()
        self._added, self._adding = 0, threading.Lock()
        self.running: list[ClipState] = []
        self.steps_total = 0

    @property
    def unfinished(self) -> int:
        """The number of waiting and running requests."""
        return len(self._waiting) + len(self.running)

    def add_request(self, request: GenerationRequest) -> int:
        """Queue a request, from any thread, and return its id."""
        with self._adding:
            self._added += 1
            self._waiting.append((self._added, request))
            self.steps_total += self._config.count_steps(request.duration)
            return self._added

    def abort(self, request_id: int) -> None:
        """Drop a request at the next step, from any thread."""
        with self._adding:
            self._aborted.add(request_id)

    def drop_aborted(self) -> set[int]:
        """Drop the requests that were aborted since the last call, and return their ids."""
        with self._adding:
            aborted, self._aborted = self._aborted, set()
            if not aborted:
                return aborted
            dropped = [request for i, request in self._waiting if i in aborted]
            self._waiting = deque(entry for entry in self._waiting if entry[0] not in aborted)
            self.steps_total -= sum(self._config.count_steps(r.duration) for r in dropped)
        for clip in [clip for clip in self.running if clip.request_id in aborted]:
            self.finish(clip)
        return aborted

    def schedule(self) -> tuple[list[ClipState], dict[int, Failure]]:
        """Start the requests whose memory is free.

        Returns
        -------
        list of ClipState
            Those added to `running`.
        dict of int to Failure
            Those that could not start, by request id.
        """
        started: list[ClipState] = []
        failures: dict[int, Failure] = {}
        while self._waiting and len(self.running) < self._cache.capacity.max_clips:
            request_id, request = self._waiting[0]  # only this thread removes it
            started_s = time.perf_counter()
            try:
                clip = self._start(request_id, request)
            except Exception as error:
                elapsed_s = time.perf_counter() - started_s
                failures[request_id] = Failure.from_error(request, error, elapsed_s)
                with self._adding:
                    self.steps_total -= self._config.count_steps(request.duration)
            else:
                if clip is None:
                    break
                clip.spent_s = time.perf_counter() - started_s
                started.append(clip)
                self.running.append(clip)
            with self._adding:
                self._waiting.popleft()
        self.running = sorted(self.running, key=lambda clip: clip.slot)
        return started, failures

    def finish(self, clip: ClipState) -> None:
        """Free the slot and the blocks of a clip, whether it is complete or not."""
        self.running.remove(clip)
        for blocks in clip.row_blocks:
            self._cache.give_back(blocks)
        if clip.prompt_blocks:
            self._prompts.release(clip.request.prompt)
        with self._adding:
            self.steps_total -= clip.steps - clip.steps_done

    def _start(self, request_id: int, request: GenerationRequest) -> ClipState | None:
        """Allocate a request's slot and blocks; None if they are not free yet."""
        later = [name for name, value in LATER_DEFAULTS.items() if getattr(request, name) != value]
        if request.duration > WINDOW_S or later:
            what = f"{later[0]}" if later else f"duration {request.duration:g}"
            raise InvalidRequest(f"this engine cannot make clips with {what}", field="duration")
        frames = self._config.count_frames(request.duration)
        steps = self._config.count_steps(request.duration)
        rows = has_prompt_row(request) + has_free_row(request)
        needed, tokens = rows * self._cache.capacity.count_blocks(steps), 0
        if has_prompt_row(request):
            tokens = self._prompts.count_tokens(request.prompt)
            needed += self._prompts.missing_blocks(request.prompt)
        if needed > self._cache.free_blocks:
            return None
        prompt_blocks = self._prompts.acquire(request.prompt) if has_prompt_row(request) else []
        row_blocks = [self._cache.take(steps) for _ in range(rows)]
        taken = {clip.slot for clip in self.running}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        return ClipState(
            request_id, request, slot, frames, steps, row_blocks, prompt_blocks, tokens
        )
