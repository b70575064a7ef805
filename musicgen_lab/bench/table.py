"""`BenchRow`: the measurements of one engine, and their formatting."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchRow:
    """The time and memory of one engine for the work.

    Attributes
    ----------
    engine, size, device, dtype : str
    clips : int
        Of the whole work.
    seconds : float
        Length of every clip.
    ms_per_step : float
        Time of the whole work over the LM steps of one clip.
    clip_seconds_per_second : float
        Seconds of audio made per second.
    first_clip_s : float
        Seconds until the first clip was finished.
    peak_memory_mb : float
        Memory added by opening and running the engine; on a GPU the peak in use.
    ratio_to_audiocraft : float or None
        How many times faster than audiocraft's loop; None if that did not run.
    floor_fraction : float
        The least time for reading the weights and the cache, divided by the measured time.
    read_speed_gb_s : float
        Measured reading speed of the memory, for the floor, in GB per second.
    timed : str
        How much of the work was timed; the rest is extrapolated.
    """

    engine: str
    size: str
    device: str
    dtype: str
    clips: int
    seconds: float
    ms_per_step: float
    clip_seconds_per_second: float
    first_clip_s: float
    peak_memory_mb: float
    ratio_to_audiocraft: float | None
    floor_fraction: float
    read_speed_gb_s: float
    timed: str


def format_table(rows: Sequence[BenchRow]) -> str:
    """Return a table for people."""
    head = ("engine", "ms/step", "sound s/s", "first clip s", "memory MB", "x audiocraft", "floor")
    lines = [
        (
            row.engine,
            f"{row.ms_per_step:.1f}",
            f"{row.clip_seconds_per_second:.2f}",
            f"{row.first_clip_s:.1f}",
            f"{row.peak_memory_mb:.0f}",
            "-" if row.ratio_to_audiocraft is None else f"{row.ratio_to_audiocraft:.1f}",
            f"{row.floor_fraction:.0%}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *lines]
    ]
    first = rows[0]
    title = (
        f"{first.size}: {first.clips} clips of {first.seconds:g} s, {first.device}, "
        f"floor at {first.read_speed_gb_s:.0f} GB/s"
    )
    notes = [f"{row.engine}: {row.dtype}, timed {row.timed}" for row in rows]
    return "\n".join([title, *table, *notes])


def describe_machine() -> str:
    """Return this machine's processor, cores, and torch's version."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].partition(":")[2].strip() if models else name
    parts = [name, f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}"])
