"""A backend that makes sines instead of music: instant, and different for every request."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import numpy as np

from musicgen_lab.clip import Clip, Failure, Provenance

SAMPLE_RATE = 8_000
MODEL = "sines@1"
PROVENANCE = Provenance(engine="sines 1", device="cpu", dtype="float32", lab_version="test")


def sine_clip(request, *, level=0.1):
    """Make a clip whose frequency follows the temperature and whose level follows cfg_coef.

    Its phase is another one for every prompt, seed and source.
    """
    t = np.arange(int((request.sound_s or request.duration) * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 200 + 400 * request.temperature + request.seed % 7
    named = f"{request.prompt} {request.seed}"
    if request.begin_with is not None:
        named += request.begin_with.digest
    phase = crc32(named.encode()) / 2**32
    samples = level * request.cfg_coef / 3 * np.sin(2 * np.pi * (frequency * t + phase))
    return Clip(request, samples[None].astype(np.float32), SAMPLE_RATE, PROVENANCE, 0.01)


class SineBackend:
    """Makes a sine for every request; prompts that start with "fail" fail."""

    name = "sines"

    def __init__(self, failures=1_000_000):
        self.made = []
        self.failures = failures

    def resolve(self, request):
        return request if request.model else request.with_model(MODEL)

    def generate(self, requests, on_progress=None):
        for request in requests:
            self.made.append(request)
            if request.prompt.startswith("fail") and self.failures > 0:
                self.failures -= 1
                yield Failure(request, "OutOfMemoryError", "no room for it", 0.01)
            else:
                yield sine_clip(request)

    def estimate_s(self, requests):
        return 0.01 * len(requests)


class PreciseSines(SineBackend):
    """Makes sines whose provenance states a precision."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def read_prompts(self, model, prompts):
        return None

    def codebook_size(self, model):
        return 2048

    def mismatch(self, provenance):
        if provenance.dtype == self.dtype:
            return None
        return f"in {provenance.dtype} instead of {self.dtype}"

    def generate(self, requests, on_progress=None):
        for clip in super().generate(requests):
            yield replace(clip, provenance=replace(clip.provenance, dtype=self.dtype))
