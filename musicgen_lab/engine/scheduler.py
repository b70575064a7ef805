"""`Scheduler`: when a waiting request starts, and what the running ones compute in a step."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from musicgen_lab.clip import Failure
from musicgen_lab.engine.beginnings import Beginnings
from musicgen_lab.engine.clip_state import ClipRow, ClipState
from musicgen_lab.engine.guidance import row_texts
from musicgen_lab.engine.kv_cache import KeyValueCache
from musicgen_lab.engine.prompts import Prompts
from musicgen_lab.engine.windows import count_steps, plan_windows
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig
from musicgen_lab.request import GenerationRequest


@dataclass
class _Waiting:
    """A request that has not started."""

    request_id: int
    request: GenerationRequest
    steps: int  # that it counts as in `Scheduler.steps_total`


@dataclass(frozen=True)
class ScheduledStep:
    """What the engine computes in one step.

    Attributes
    ----------
    prefill : list of ClipState
        Whose next chunks of given steps are computed.
    decoding : list of ClipState
        Who samples the next tokens.
    listened : bool
        Whether a clip that can sample is listened to, so that the step has to be short.
    """

    prefill: list[ClipState]
    decoding: list[ClipState]
    listened: bool


class Scheduler:
    """Starts requests first come, first served, each when its memory is free.

    A request needs a slot, the blocks of its longest window, and those of its prompts unless a
    running clip has the same ones. It takes all of them at its start, so it never runs out of
    memory, and later requests wait behind it, so it never starves. Requests may be added from any
    thread; all else is done by one thread at a time.

    Parameters
    ----------
    config : ModelConfig
    cache : KeyValueCache
    prompts : Prompts
    beginnings : Beginnings
    prefill_clips : int
        The most clips whose chunks are computed in one step.

    Attributes
    ----------
    running : list of ClipState
        In the order of their slots.
    steps_total : int
        Steps of all requests so far, except for those that were aborted or failed.
    """

    def __init__(
        self,
        config: ModelConfig,
        cache: KeyValueCache,
        prompts: Prompts,
        beginnings: Beginnings,
        prefill_clips: int,
    ) -> None:
        self._config, self._cache, self._prompts = config, cache, prompts
        self._beginnings, self._prefill_clips = beginnings, prefill_clips
        self._waiting: deque[_Waiting] = deque()
        self._aborted: set[int] = set()
        self._added, self._adding = 0, threading.Lock()
        self.running: list[ClipState] = []
        self.steps_total = 0

    @property
    def unfinished(self) -> int:
        """The number of waiting and running requests."""
        return len(self._waiting) + len(self.running)

    def count_steps(self, request: GenerationRequest) -> int:
        """Return the steps that a request takes; 0 for one that will be refused."""
        try:
            given = self._beginnings.count_frames(request)
            return count_steps(plan_windows(self._config, request, given))
        except InvalidRequest:
            return 0

    def add_request(self, request: GenerationRequest) -> int:
        """Queue a request, from any thread, and return its id."""
        steps = self.count_steps(request)
        with self._adding:
            self._added += 1
            self._waiting.append(_Waiting(self._added, request, steps))
            self.steps_total += steps
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
            dropped = [each for each in self._waiting if each.request_id in aborted]
            self._waiting = deque(each for each in self._waiting if each.request_id not in aborted)
            self.steps_total -= sum(each.steps for each in dropped)
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
            waiting = self._waiting[0]  # only this thread removes it
            started_s = time.perf_counter()
            steps = 0
            try:
                clip = self._start(waiting)
            except Exception as error:
                elapsed_s = time.perf_counter() - started_s
                failure = Failure.from_error(waiting.request, error, elapsed_s)
                failures[waiting.request_id] = failure
            else:
                if clip is None:
                    break
                clip.spent_s = time.perf_counter() - started_s
                steps = clip.steps
                started.append(clip)
                self.running.append(clip)
            with self._adding:
                self._waiting.popleft()
                self.steps_total += steps - waiting.steps
        self.running = sorted(self.running, key=lambda clip: clip.slot)
        return started, failures

    def schedule_step(self, streamed: Container[int]) -> ScheduledStep:
        """Decide what the running clips compute next: chunked prefill, a chunk of a clip a step.

        Prefill comes first, as a larger batch decodes faster. While a decoding clip is listened to,
        all that can decode do so in the same steps, so that its sound does not stop.

        Parameters
        ----------
        streamed : container of int
            Ids of the requests whose sound is listened to.
        """
        prefilling = [clip for clip in self.running if clip.is_prefilling]
        decoding = [c for c in self.running if not c.is_prefilling and not c.ends_window]
        listened = any(clip.request_id in streamed for clip in decoding)
        if not prefilling:
            return ScheduledStep([], decoding, listened)
        prefilling.sort(key=lambda c: (c.request_id not in streamed, c.request_id))
        first = prefilling[: self._prefill_clips]
        return ScheduledStep(first, decoding if listened else [], listened)

    def finish(self, clip: ClipState) -> None:
        """Free the slot and the blocks of a clip, whether it is complete or not."""
        self.running.remove(clip)
        self._free(clip.rows)
        with self._adding:
            self.steps_total -= clip.steps - clip.steps_done

    def _start(self, waiting: _Waiting) -> ClipState | None:
        """Allocate a request's slot and blocks; None if they are not free yet."""
        request = waiting.request
        codes = self._beginnings.codes(request)  # (K, given frames)
        windows = plan_windows(self._config, request, codes.shape[1])
        steps = max(window.end for window in windows)
        texts, capacity = row_texts(request), self._cache.capacity
        blocks = len(texts) * capacity.count_blocks(steps)
        blocks += sum(self._prompts.missing_blocks(text) for text in {*texts} if text != "")
        if blocks > capacity.blocks:
            raise InvalidRequest(
                f"prompt, prompt_b and negative_prompt need {blocks:,} blocks of memory together, "
                f"and there are {capacity.blocks:,}; shorten them, or raise max_clips",
                field="prompt",
                value=request.prompt,
            )
        rows = len(texts) + sum(len(clip.rows) for clip in self.running)
        if blocks > self._cache.free_blocks or rows > capacity.max_rows:
            return None
        taken = {clip.slot for clip in self.running}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        clip_rows = self._take_rows(texts, steps)
        return ClipState(waiting.request_id, request, slot, windows, clip_rows, codes)

    def _take_rows(self, texts: list[str], steps: int) -> list[ClipRow]:
        """Allocate the blocks of a clip's rows and prompts."""
        rows: list[ClipRow] = []
        try:
            for text in texts:
                row = ClipRow(text, [])
                if text != "":
                    row.text_tokens = self._prompts.count_tokens(text)
                    row.text_blocks = self._prompts.acquire(text)
                rows.append(row)
        except Exception:
            self._free(rows)
            raise
        for row in rows:
            row.blocks = self._cache.take(steps)
        return rows

    def _free(self, rows: list[ClipRow]) -> None:
        """Free the blocks of a clip's rows and prompts."""
        for row in rows:
            self._cache.give_back(row.blocks)
            if row.text != "":
                self._prompts.release(row.text)
