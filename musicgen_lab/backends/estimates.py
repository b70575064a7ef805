"""`Estimate`: the time and cost of a sweep on a deployed service, before it is run.

Generation reads all weights once a step for all clips of a batch: the time of a step is the size
of the weights over the memory's bandwidth, whether a clip has two rows or three. Codes that a clip
begins with, or a window of it, are read in few steps, which is next to nothing. No number here was
measured on Modal's machines.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from musicgen_lab.backends.gpus import GPUS
from musicgen_lab.backends.prices import CPU, Cost, Prices
from musicgen_lab.request import GenerationRequest

FRAME_RATE_HZ = 50
START_S = 60.0  # of a container, weights included
BANDWIDTH_SHARE = 0.5  # of the data sheet's, that reading the weights reaches
WEIGHTS_BYTES = {"small": 0.84e9, "medium": 3.0e9, "large": 6.6e9}  # in 16 bits

CPU_BYTES_PER_S = 0.017e12  # of two cores


class Estimate:
    """Seconds and dollars of clips on one deployment.

    Parameters
    ----------
    about : Mapping
        The service's description: `gpu` (names in order of preference), `cores`,
        `memory_gib`, `clips_at_once` (by model and GPU), `containers_max`, `scaledown_window_s`.
    prices : Prices
    """

    def __init__(self, about: Mapping[str, Any], prices: Prices) -> None:
        self._about, self._prices = about, prices
        self._gpus = {prices.find(name) or name: name for name in about["gpu"] or [CPU]}

    def wait_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Return the wall-clock seconds with all containers that may start; None if unknown."""
        first = next(iter(self._gpus))
        gpu_s = self._gpu_s(requests, first)
        if gpu_s is None or not requests:
            return gpu_s
        return START_S + gpu_s / self._containers(requests, first)

    def cost(self, requests: Sequence[GenerationRequest]) -> Cost | None:
        """Return the cost of the clips, including each container's start and idle time.

        None if the model or the first GPU is unknown.
        """
        first, *others = (self._cost_on(gpu, requests) for gpu in self._gpus)
        if first is None:
            return None
        otherwise = tuple(other for other in others if other is not None)
        return Cost(first.gpu, first.gpu_s, first.usd, first.priced_at, otherwise)

    def usd_per_s(self, gpu: str) -> float:
        """Return the dollars that a second of a container with this GPU costs."""
        return self._prices.of_container(
            gpu, cores=self._about["cores"], memory_gib=self._about["memory_gib"]
        )

    def _cost_on(self, gpu: str, requests: Sequence[GenerationRequest]) -> Cost | None:
        gpu_s = self._gpu_s(requests, gpu)
        if gpu_s is None or gpu not in self._prices.usd_per_s:
            return None
        if requests:
            unused_s = START_S + self._about["scaledown_window_s"]
            gpu_s += self._containers(requests, gpu) * unused_s
        return Cost(gpu, gpu_s, gpu_s * self.usd_per_s(gpu), self._prices.priced_at)

    def _containers(self, requests: Sequence[GenerationRequest], gpu: str) -> int:
        """Return how many containers Modal is likely to start."""
        by_model = Counter(str(request.model) for request in requests)
        most = int(self._about["containers_max"])
        return sum(
            min(math.ceil(clips / self._clips_at_once(model, gpu)), most)
            for model, clips in by_model.items()
        )

    def _clips_at_once(self, model: str, gpu: str) -> int:
        return int(self._about["clips_at_once"][model][self._gpus[gpu]])

    def _gpu_s(self, requests: Sequence[GenerationRequest], gpu: str) -> float | None:
        """Return the seconds of generating alone; None for models or GPUs of unknown size."""
        if gpu != CPU and gpu not in GPUS:
            return None
        bytes_per_s = CPU_BYTES_PER_S if gpu == CPU else GPUS[gpu].bytes_per_s
        total_s = 0.0
        by_model = Counter(str(request.model) for request in requests)
        for request in requests:
            model = str(request.model)
            clips = min(by_model[model], self._clips_at_once(model, gpu))
            kind = model.partition("@")[0].rpartition("-")[2]
            if kind not in WEIGHTS_BYTES:
                return None
            step_s = WEIGHTS_BYTES[kind] / (bytes_per_s * BANDWIDTH_SHARE)
            total_s += request.new_s * FRAME_RATE_HZ * step_s / clips
        return total_s
