"""`musicgen-lab bench`: the speed of several engines on the same work on this machine.

The work is a number of clips, or a grid of sampling parameters with one clip per cell. Engines
that take one set of parameters per batch have to make a grid clip by clip: one clip is timed then,
and multiplied by the number of cells. A row says how much of the work was timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.bench.table import BenchRow
from musicgen_lab.engine.options import DEFAULT_OPTIONS, EngineOptions
from musicgen_lab.engine.windows import count_steps, plan_windows
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig, load_config
from musicgen_lab.request import GenerationRequest

if TYPE_CHECKING:
    from musicgen_lab.bench.engines import BenchEngine
    from musicgen_lab.bench.profile import KernelClass

PROMPT = "upbeat electronic dance music with heavy bass"
SIZES = ("small", "medium", "large")
ENGINES = ("lab", "audiocraft", "audiocraft-batch", "transformers", "transformers-batch")
WARM_UP_S = 1.0
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass
class _Contestant:
    """An engine and the seconds of each round: for all work, and until the first clip."""

    engine: BenchEngine
    memory: int
    rounds: list[tuple[float, float]]


def check_at_least(name: str, value: int, least: int) -> None:
    """Reject an option whose value is too small.

    Raises
    ------
    InvalidRequest
    """
    if value < least:
        raise InvalidRequest(
            f"{name} must be at least {least}, got {value}", field=name, value=value
        )


def make_work(clips: int, grid: tuple[int, int] | None, seconds: float) -> list[GenerationRequest]:
    """Return the requests of the work: a grid of temperature by cfg_coef, or clips of one cell.

    Parameters
    ----------
    clips : int
        Used if there is no grid.
    grid : (int, int) or None
        Temperatures and guidance coefficients, all with guidance on.
    seconds : float
        Length of every clip.

    Raises
    ------
    InvalidRequest
        When there is no clip, or its length is invalid.
    """
    check_at_least("clips", clips, 1)
    temperatures, coefs = grid or (1, 1)
    if min(temperatures, coefs) < 1:
        text = f"{temperatures}x{coefs}"
        raise InvalidRequest(f"grid must be at least 1x1, got {text}", field="grid", value=text)
    cells: list[dict[str, Any]] = [
        {"temperature": 0.7 + 0.1 * t, "cfg_coef": 3.0 + 0.5 * c}
        for t in range(temperatures)
        for c in range(coefs)
    ]
    count = len(cells) if grid else clips
    return [
        GenerationRequest(prompt=PROMPT, duration=seconds, seed=i, **cells[i % len(cells)])
        for i in range(count)
    ]


def profile_lab(
    folder: Path,
    *,
    clips: int,
    grid: tuple[int, int] | None,
    seconds: float,
    options: EngineOptions,
) -> list[KernelClass]:
    """Return the lab engine's time by classes of kernels, for work as in `run`."""
    from musicgen_lab.bench.engines import LabEngine
    from musicgen_lab.bench.profile import profile
    from musicgen_lab.engine.engine import Engine

    work = make_work(clips, grid, seconds)
    opened = Engine.open(folder, options)
    engine = LabEngine(opened, len(work))
    engine.make(work)  # a warm-up of every shape
    return profile(lambda: engine.make(work), opened.transformer.device)


@contextmanager
def model_of_size(size: str, model: Path | None) -> Iterator[Path]:
    """Yield a model folder: the given one, or one of a released size with random weights.

    Raises
    ------
    InvalidRequest
        When the size is unknown.
    """
    if model is not None:
        yield model
        return
    if size not in SIZES:
        raise InvalidRequest(f"size must be one of {', '.join(SIZES)}, got {size!r}", field="size")
    from musicgen_lab.bench.random_model import write_random_model

    with tempfile.TemporaryDirectory() as temporary:
        yield write_random_model(Path(temporary) / "model", size)


def run(
    *,
    size: str = "small",
    model: Path | None = None,
    clips: int = 1,
    grid: tuple[int, int] | None = None,
    seconds: float = 8.0,
    engines: Sequence[str] = ("lab", "audiocraft"),
    options: EngineOptions = DEFAULT_OPTIONS,
    rounds: int = 3,
    peer_seconds: float | None = None,
    busy: int = 0,
) -> list[BenchRow]:
    """Time engines on the same work, interleaved, after a warm-up.

    Parameters
    ----------
    size : {"small", "medium", "large"}
        A released size, with random weights; only a label where `model` is given.
    model : Path, optional
        A model folder.
    clips : int
        Clips with equal parameters, if there is no grid.
    grid : (int, int), optional
        Temperatures by guidance coefficients.
    seconds : float
        Length of every clip; one longer than the model's window is made in several, and the other
        engines are timed on one.
    engines : sequence of str
        Of `ENGINES`.
    options : EngineOptions
        The device counts for every engine, the rest for the lab engine; transformers takes the
        dtype too.
    rounds : int
        The median is reported.
    peer_seconds : float, optional
        Time the other engines on clips of this length and extrapolate. This favours them, since
        their later steps are slower than their first.
    busy : int
        Busy processes that run while the engines are timed.

    Returns
    -------
    list of BenchRow
        One per engine.

    Raises
    ------
    InvalidRequest
        When the size, the engine or the length is invalid.
    ModelUnavailable
        When an engine is not installed or the model cannot be opened.
    """
    check_at_least("rounds", rounds, 1)
    check_at_least("busy", busy, 0)
    if not engines or not {*engines} <= {*ENGINES}:
        raise InvalidRequest(
            f"engines must be of {', '.join(ENGINES)}, got {', '.join(engines) or 'none'}",
            field="engines",
            value=list(engines),
        )
    work = make_work(clips, grid, seconds)
    from musicgen_lab.bench import engines as bench_engines

    peer_s = seconds if peer_seconds is None else peer_seconds
    with model_of_size(size, model) as folder:
        config = load_config(folder)
        peer_work = make_work(clips, grid, min(peer_s, config.window_s))
        bandwidth = bench_engines.memory_bandwidth(options.device)
        contestants = []
        for name in engines:
            before = bench_engines.used_memory(options.device)
            engine = bench_engines.open_bench_engine(name, folder, options=options, clips=len(work))
            shapes = make_work(clips, grid, WARM_UP_S)  # a GPU's step is recorded by batch size
            engine.make(shapes[: engine.clips_at_once])
            memory = bench_engines.used_memory(options.device) - before
            contestants.append(_Contestant(engine, memory, []))
        with bench_engines.busy_processes(busy):
            for _ in range(rounds):
                for contestant in contestants:
                    mine = work if contestant.engine.name == "lab" else peer_work
                    before = bench_engines.used_memory(options.device)
                    contestant.rounds.append(_time(contestant.engine, mine))
                    contestant.memory += max(bench_engines.used_memory(options.device) - before, 0)
    rows = [
        _row(c, size, work, work if c.engine.name == "lab" else peer_work, config, bandwidth)
        for c in contestants
    ]
    return _compare(rows)


def _time(engine: BenchEngine, work: Sequence[GenerationRequest]) -> tuple[float, float]:
    """Time as many clips as the engine takes at once: the seconds for all, and for the first."""
    started_s = time.perf_counter()
    first_s = engine.make(work[: engine.clips_at_once])
    return time.perf_counter() - started_s, first_s


def _row(
    contestant: _Contestant,
    size: str,
    work: Sequence[GenerationRequest],
    timed: Sequence[GenerationRequest],
    config: ModelConfig,
    bandwidth: float,
) -> BenchRow:
    engine = contestant.engine
    windows = plan_windows(config, work[0])
    steps, timed_steps = count_steps(windows), count_steps(plan_windows(config, timed[0]))
    timed_clips = min(engine.clips_at_once, len(timed))
    scale = len(work) / timed_clips * steps / timed_steps
    total_s = statistics.median(whole for whole, _ in contestant.rounds) * scale
    first_s = statistics.median(first for _, first in contestant.rounds) * steps / timed_steps
    context = sum(each.steps * (each.start + each.end) / 2 for each in windows) / steps
    floor_s = steps * _bytes_per_step(config, engine.dtype, len(work), context) / bandwidth
    return BenchRow(
        engine=engine.name,
        size=size,
        device=engine.device,
        dtype=engine.dtype,
        clips=len(work),
        seconds=work[0].duration,
        ms_per_step=1000 * total_s / steps,
        clip_seconds_per_second=len(work) * work[0].duration / total_s,
        first_clip_s=first_s,
        peak_memory_mb=contestant.memory / 1e6,
        ratio_to_audiocraft=None,
        floor_fraction=floor_s / total_s,
        read_speed_gb_s=bandwidth / 1e9,
        timed=f"{timed_clips} of {len(work)} clips, {timed_steps} of {steps} steps",
    )


def _bytes_per_step(config: ModelConfig, dtype: str, clips: int, context: float) -> float:
    """Return the bytes that a step must read: all weights, and the caches at a mean length.

    The embeddings, of which a step reads a few rows, and the weights for a prompt's keys and values
    are not counted. On the CPU float32 is computed from weights in their stored precision.
    """
    layer = 6 * config.dim**2 + 2 * config.dim * config.ffn_dim
    parameters = config.layers * layer + config.codebooks * config.card * config.dim
    weights = parameters * min(ITEM_BYTES[config.dtype], ITEM_BYTES[dtype])
    cache = 2 * clips * 2 * config.layers * config.dim * ITEM_BYTES[dtype] * context
    return weights + cache


def _compare(rows: Sequence[BenchRow]) -> list[BenchRow]:
    reference = next((row.ms_per_step for row in rows if row.engine == "audiocraft"), None)
    if reference is None:
        return list(rows)
    return [replace(row, ratio_to_audiocraft=reference / row.ms_per_step) for row in rows]
