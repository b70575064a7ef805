"""`LocalBackend`: clips made by a model in this process."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine.source import CHECKPOINT_FILES, EMBEDDED, ModelSource, locate
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.engine.reference import ReferenceEngine

FRAME_RATE_HZ = 50
START_S = 20.0  # importing audiocraft and opening a model
STEP_S = 0.006  # a step's fixed part
BYTES_PER_S = 17e9  # memory read by a step's float32 weights; FP16 files hold half of it


class LocalBackend:
    """A model in this process, on the CPU or a GPU.

    Parameters
    ----------
    model : str
        "demo", the path of a checkpoint folder, or a Hub id.
    device : str
        "auto", "cpu", "cuda" or any other of torch's.

    Raises
    ------
    BackendUnavailable
        When torch is not installed.
    ModelUnavailable
        When there is no such model.
    """

    def __init__(self, model: str = EMBEDDED, *, device: str = "auto") -> None:
        missing = [
            name for name in ("torch", "audiocraft") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise BackendUnavailable(
                f"the local backend needs {' and '.join(missing)}, not installed here: "
                "pip install 'musicgen-lab[local]'"
            )
        self._default = locate(model)
        self._sources = {self._default.identity: self._default}
        self._device = device
        self._engine: tuple[str, ReferenceEngine] | None = None

    @property
    def name(self) -> str:
        """The default model and the engine."""
        return f"local ({self._default.name}, audiocraft)"

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model's revision; the backend's own model where none is."""
        if request.model is None:
            return request.with_model(self._default.identity)
        if request.model in self._sources:
            return request
        source = locate(request.model)
        self._sources[source.identity] = source
        return request.with_model(source.identity)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Clip | Failure]:
        """Make the clips one after another, each taken from `requests` when its turn comes."""
        for request in requests:
            request = self.resolve(request)
            engine = self._open(self._sources[str(request.model)])
            started = time.perf_counter()
            try:
                result: Clip | Failure = engine.generate(request)
            except Exception as error:
                elapsed_s = time.perf_counter() - started
                result = Failure(request, type(error).__name__, str(error), elapsed_s)
            yield result

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Estimate from the size of the weights; None for a model that is yet to be fetched.

        A step reads every weight once, so its time is a fixed part and the weights over the
        speed of memory, measured on two cores.
        """
        total_s = START_S if requests and self._engine is None else 0.0
        for request in requests:
            source = self._sources[str(self.resolve(request).model)]
            if source.folder is None:
                return None
            weights_bytes = 2 * (source.folder / CHECKPOINT_FILES[0]).stat().st_size
            step_s = STEP_S + weights_bytes / BYTES_PER_S
            total_s += request.duration * FRAME_RATE_HZ * step_s
        return total_s

    def _open(self, source: ModelSource) -> ReferenceEngine:
        """Return the engine of a model; one model is kept open at a time."""
        if self._engine is None or self._engine[0] != source.identity:
            from musicgen_lab.engine.reference import ReferenceEngine

            self._engine = None  # give the memory back first
            self._engine = (source.identity, ReferenceEngine(source.fetch(), self._device))
        return self._engine[1]
