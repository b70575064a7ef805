"""An engine that makes a sine of every request in one step, and a worker over it."""

import itertools

from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.models.prompt_tokens import PromptTokens
from musicgen_lab.streaming import SoundChunk
from tests.support.sines import MODEL, PROVENANCE, sine_clip

CODEBOOK_SIZE = 512
STEPS = 2  # what a clip is said to take


class SineEngine:
    """Makes sines; prompts that start with "fail" fail, `failures` times.

    The first half of a clip that is streamed is handed out before the clip; a clip whose prompt is
    "fail in the middle" then fails.
    """

    provenance, codebook_size = PROVENANCE, CODEBOOK_SIZE

    def __init__(self, *, max_clips=1, failures=1_000_000):
        self.max_clips, self.failures, self.made = max_clips, failures, []
        self._ids, self._waiting, self.steps_done = itertools.count(), {}, 0

    def add_request(self, request, on_chunk=None):
        request_id = next(self._ids)
        self._waiting[request_id] = request, on_chunk
        return request_id

    def abort(self, request_id):
        self._waiting.pop(request_id, None)

    def count_steps(self, request):
        return STEPS

    def steps_done_of(self, request_id):
        return 0

    def read_prompt(self, prompt):
        words = prompt.split()
        unread = tuple(word for word in words if not word.isascii())
        return PromptTokens(" ".join(word for word in words if word.isascii()), unread)

    def device_works(self):
        return True

    def step(self):
        taken = [self._waiting.pop(i) for i in list(self._waiting)[: self.max_clips]]
        self.steps_done += len(taken)
        for request, on_chunk in filter(None, taken):
            if on_chunk is not None and request.prompt != "fail at once":
                self.hand_out(request, on_chunk)
        return [self.make(request) for request, _ in filter(None, taken)]

    def hand_out(self, request, on_chunk):
        on_chunk(first_half(sine_clip(request)))

    def make(self, request):
        self.made.append(request)
        if request.prompt.startswith("fail") and self.failures > 0:
            self.failures -= 1
            try:
                raise MemoryError("no room for it")
            except MemoryError as error:
                return Failure.from_error(request, error, 0.01)
        return sine_clip(request)


def first_half(clip: Clip) -> SoundChunk:
    total = clip.samples.shape[1]
    samples = clip.samples[:, : total // 2]
    return SoundChunk(samples, clip.sample_rate, 0.0, 1, STEPS, total)


def sine_worker(engine=None):
    """Return a worker over an engine of sines."""
    return EngineWorker(engine or SineEngine(), MODEL)
