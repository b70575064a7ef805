"""`LocalBackend`: clips from a model in this process."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from musicgen_lab.backends.submitting import of_one_request
from musicgen_lab.clip import Clip, Failure, Provenance
from musicgen_lab.engine.capacity import AUTO_CLIPS_MAX
from musicgen_lab.engine.guidance import row_texts
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.windows import count_steps, plan_windows
from musicgen_lab.errors import BackendUnavailable, InvalidRequest
from musicgen_lab.fields import TOP_K_MAX
from musicgen_lab.models.codec_identity import read_codec_identity
from musicgen_lab.models.locate import EMBEDDED, ModelSource, locate
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from musicgen_lab.backends import OnProgress
    from musicgen_lab.backends.worker import EngineWorker
    from musicgen_lab.models.config import ModelConfig
    from musicgen_lab.models.prompt_tokens import PromptTokens
    from musicgen_lab.source import Source
    from musicgen_lab.streaming import SoundChunk

ENGINES = {"lab": ("torch", "transformers"), "audiocraft": ("torch", "audiocraft")}
FRAME_RATE_HZ = 50.0  # of every released model

# For estimates, measured on two cores in float32.
START_S = {"lab": 3.0, "audiocraft": 20.0}  # imports, and opening a model
STEP_S = 0.0015  # the fixed part of a step, per layer
PARAMETERS_PER_S = 40e9  # multiplied in a second, small batch or large
DECODE_S = 0.05  # a second of audio
INSTALL = {
    "lab": "pip install 'musicgen-lab[local]'",
    "audiocraft": "type `uv sync --group reference` in a checkout",
}


class _Engine(Protocol):
    """The interface that the lab engine and the audiocraft reference share."""

    on_progress: Callable[[int], None] | None

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Clip | Failure]: ...


class LocalBackend:
    """A model in this process, on the CPU or a GPU.

    Parameters
    ----------
    model : str
        "demo", a Hub id, or the path of a model or checkpoint folder.
    engine : {"lab", "audiocraft"}
        "lab" makes many clips in one batch; "audiocraft" is the reference, one clip at a time.
    device : str
        "auto", "cpu", "cuda" or any other of torch's.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        "auto" is bfloat16 on a GPU that has it, float32 elsewhere.
    max_clips : int or "auto"
        The most clips that the lab engine makes at once; "auto" is as many as fit in memory.
    cuda_graphs : bool
        Whether the lab engine records a step once and replays it, on an NVIDIA GPU.

    Raises
    ------
    BackendUnavailable
        When torch is not installed.
    InvalidRequest
        When there is no such engine, or an option does not fit it.
    ModelUnavailable
        When there is no such model.
    """

    def __init__(
        self,
        model: str = EMBEDDED,
        *,
        engine: str = "lab",
        device: str = "auto",
        dtype: str = "auto",
        max_clips: int | Literal["auto"] = "auto",
        cuda_graphs: bool = True,
    ) -> None:
        if engine not in ENGINES:
            raise InvalidRequest(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
        if engine == "audiocraft" and (dtype, max_clips, cuda_graphs) != ("auto", "auto", True):
            raise InvalidRequest(
                "dtype, max_clips and cuda_graphs are for the lab engine; leave them out"
            )
        self._options = EngineOptions(device, dtype, max_clips, cuda_graphs)
        missing = [name for name in ENGINES[engine] if importlib.util.find_spec(name) is None]
        if missing:
            raise BackendUnavailable(
                f"the local backend needs {' and '.join(missing)}, not installed here: "
                f"{INSTALL[engine]}"
            )
        if device not in ("auto", "cpu") or dtype != "auto":  # torch takes a second to import
            from musicgen_lab.engine.device import choose_device, choose_dtype

            choose_dtype(dtype, choose_device(device))
        self._engine_name = engine
        self._default = locate(model)
        self._sources = {self._default.identity: self._default}
        self._checked: set[tuple[str, str]] = set()  # models and codes that belong together
        self._tokenizers: dict[str, Tokenizer] = {}  # by identity
        self._open_engine: tuple[str, _Engine] | None = None
        self._lent: dict[str, tuple[EngineWorker, int]] = {}  # by identity, with their streams
        self._lending = threading.Lock()

    @property
    def name(self) -> str:
        """The engine's name."""
        return f"local ({self._engine_name} engine)"

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request with its model's revision; the default model if it names none.

        Raises
        ------
        ModelUnavailable
            When there is no such model.
        InvalidRequest
            When it begins with the codes of another codec than the model's.
        """
        if request.model is None:
            request = request.with_model(self._default.identity)
        elif request.model not in self._sources:
            source = locate(request.model)
            self._sources[source.identity] = source
            request = request.with_model(source.identity)
        if request.begin_with is not None:
            self._check_codec(str(request.model), request.begin_with)
        return request

    def _check_codec(self, model: str, begin_with: Source) -> None:
        """Raise for codes of another codec; nothing is known of a model that is to be prepared."""
        if not begin_with.is_codes or (model, begin_with.digest) in self._checked:
            return
        folder, config = self._sources[model].prepared, self._sources[model].config()
        if folder is None or config is None:
            return
        stored, codec = begin_with.codes(), read_codec_identity(folder, config)
        if stored.codec != codec or len(stored.codes) != config.codebooks:
            raise InvalidRequest(
                f"{begin_with.name} has {len(stored.codes)} codebooks of the codec {stored.codec}, "
                f"and {model.partition('@')[0]} has {config.codebooks} of {codec}; begin with the "
                "clip's sound, its .wav in the run folder",
                field="begin_with",
                value=begin_with.digest,
            )
        self._checked.add((model, begin_with.digest))

    def codebook_size(self, model: str) -> int:
        """Return the tokens in a codebook of a resolved model, or the most that any model has."""
        config = self._sources[model].config()
        return config.card if config is not None else TOP_K_MAX

    def read_prompts(self, model: str, prompts: Sequence[str]) -> list[PromptTokens] | None:
        """Return what a resolved model reads of each prompt; None if it is yet to be prepared."""
        folder = self._sources[model].prepared
        if folder is None:
            return None
        from musicgen_lab.models.tokenizer import open_tokenizer, read_prompt

        if model not in self._tokenizers:
            self._tokenizers[model] = open_tokenizer(folder)
        return [read_prompt(self._tokenizers[model], prompt) for prompt in prompts]

    def mismatch(self, provenance: Provenance) -> str | None:
        """Return how a clip was made differently: by another engine, or in another precision."""
        made_by = provenance.engine.partition(" ")[0].replace("musicgen-lab", "lab")
        if made_by != self._engine_name:
            return f"by the {made_by} engine instead of {self._engine_name}"
        if self._options.dtype not in ("auto", provenance.dtype):
            return f"in {provenance.dtype} instead of {self._options.dtype}"
        return None

    def generate(
        self, requests: Iterable[GenerationRequest], on_progress: OnProgress | None = None
    ) -> Iterator[Clip | Failure]:
        """Make the clips, taking each request when capacity is free.

        Consecutive requests for one model share a batch; one model is open at a time.
        """
        resolved = map(self.resolve, requests)
        for identity, group in itertools.groupby(resolved, lambda request: str(request.model)):
            yield from self._generate(self._sources[identity], group, on_progress)

    def stream(self, request: GenerationRequest) -> Generator[SoundChunk]:
        """Yield the sound of a request while it is made, as in `Streams`.

        Raises
        ------
        InvalidRequest
            With the audiocraft engine, which makes a clip in one piece.
        """
        return of_one_request(self.stream_all([request]))

    def stream_all(
        self, requests: Sequence[GenerationRequest]
    ) -> Generator[tuple[int, SoundChunk | Failure]]:
        """Yield the sound of several requests while they are made, as in `Streams`.

        Raises
        ------
        InvalidRequest
            When they are of several models; with the audiocraft engine.
        """
        return self._stream(self._check_streamed(requests))

    def _check_streamed(self, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """Return the requests with their model, if they can be streamed together."""
        if self._engine_name == "audiocraft":
            raise InvalidRequest(
                "the audiocraft engine makes a clip in one piece; stream with engine='lab'"
            )
        resolved = [self.resolve(request) for request in requests]
        models = sorted({str(request.model) for request in resolved})
        if len(models) > 1:
            raise InvalidRequest(
                f"requests that are streamed together must be of one model, got {models[0]} and "
                f"{models[1]}; stream each model's on their own",
                field="model",
                value=models[1],
            )
        return resolved

    def _stream(
        self, requests: Sequence[GenerationRequest]
    ) -> Generator[tuple[int, SoundChunk | Failure]]:
        if requests:
            with self._stepped(self._sources[str(requests[0].model)]) as worker:
                yield from worker.stream_all(requests)

    @contextmanager
    def _stepped(self, source: ModelSource) -> Iterator[EngineWorker]:
        """Lend the thread that steps a model's engine, which ends with the last stream."""
        from musicgen_lab.backends.worker import EngineWorker
        from musicgen_lab.engine.engine import Engine

        identity = source.identity
        with self._lending:
            if identity not in self._lent:
                engine = self._open(source)
                assert isinstance(engine, Engine)
                self._lent[identity] = EngineWorker(engine, identity), 0
            worker, users = self._lent[identity]
            self._lent[identity] = worker, users + 1
        try:
            yield worker
        finally:
            with self._lending:
                worker, users = self._lent.pop(identity)
                if users > 1:
                    self._lent[identity] = worker, users - 1
                else:
                    worker.close()

    def _generate(
        self,
        source: ModelSource,
        requests: Iterable[GenerationRequest],
        on_progress: OnProgress | None,
    ) -> Iterator[Clip | Failure]:
        """Make clips with one model; it is closed when the next one is opened."""
        engine = self._open(source)
        report = engine.on_progress = on_progress and _in_seconds(on_progress, source)
        try:
            yield from engine.generate(requests)
        finally:
            if engine.on_progress is report:  # and not that of a later call
                engine.on_progress = None

    def estimate_s(self, requests: Sequence[GenerationRequest]) -> float | None:
        """Estimate from the size of the models and what a step cost on two cores.

        None if a model has not been prepared yet or a GPU may be used.
        """
        if self._options.device not in ("auto", "cpu") or shutil.which("nvidia-smi"):
            return None
        total_s = 0.0
        by_model = itertools.groupby(map(self.resolve, requests), lambda r: str(r.model))
        for identity, group in by_model:
            config = self._sources[identity].config()
            if config is None:
                return None
            at_once = (
                AUTO_CLIPS_MAX if self._options.max_clips == "auto" else self._options.max_clips
            )
            total_s += START_S[self._engine_name] + estimate_cpu_s(
                list(group), config, at_once if self._engine_name == "lab" else 1
            )
        return total_s

    def _open(self, source: ModelSource) -> _Engine:
        """Return the engine of a model; one model is kept open at a time."""
        if self._open_engine is None or self._open_engine[0] != source.identity:
            self._open_engine = None  # free the memory first
            self._open_engine = (source.identity, self._new_engine(source))
        return self._open_engine[1]

    def _new_engine(self, source: ModelSource) -> _Engine:
        if self._engine_name == "audiocraft":
            from musicgen_lab.reference.engine import ReferenceEngine

            folder = source.prepared or source.fetch()
            return ReferenceEngine(folder, self._options.device)
        from musicgen_lab.conversion.prepare import prepare
        from musicgen_lab.engine.engine import Engine

        return Engine.open(prepare(source), self._options)


def estimate_cpu_s(
    requests: Sequence[GenerationRequest], config: ModelConfig, at_once: int
) -> float:
    """Return the estimated seconds for making clips on a CPU with a model that is open.

    Parameters
    ----------
    requests : sequence of GenerationRequest
    config : ModelConfig
    at_once : int
        The most clips in a batch.
    """
    batch = max(1, min(len(requests), at_once))
    steps = row_steps = 0
    for clip in requests:
        try:
            windows = plan_windows(config, clip, int((clip.given_s or 0.0) * config.frame_rate))
        except InvalidRequest:  # it is refused when it is made
            continue
        steps += count_steps(windows)
        row_steps += len(row_texts(clip)) * sum(window.end for window in windows)
    fixed_s = steps / batch * STEP_S * config.layers
    decode_s = sum(clip.duration for clip in requests) * DECODE_S
    return fixed_s + row_steps * config.parameters / PARAMETERS_PER_S + decode_s


def _in_seconds(on_progress: OnProgress, source: ModelSource) -> Callable[[int], None]:
    """Turn an engine's steps into seconds of audio."""
    config = source.config()
    frame_rate = config.frame_rate if config is not None else FRAME_RATE_HZ
    return lambda steps: on_progress(steps / frame_rate)
