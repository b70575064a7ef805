"""Where and how precisely to compute, and how many clips fit there at once."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import torch

from musicgen_lab.engine.checkpoint import Checkpoint
from musicgen_lab.engine.config import ModelConfig
from musicgen_lab.engine.linear import half_weights_are_fast
from musicgen_lab.engine.transformer import cache_dtype
from musicgen_lab.errors import InvalidRequest

ROWS_PER_SLOT = 2  # with the prompt and without it
PROMPT_TOKENS_COUNTED = 256  # of a prompt of a thousand characters, the most that one may have
AUTO_SLOTS_MAX = 32
_HEADROOM = 0.8  # of the free memory: text encoder, codec and the system want some
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" prefers a GPU.

    Raises
    ------
    InvalidRequest
        When there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(1, device=name).device  # with its number, of several GPUs
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidRequest(
            f"device must be one of this machine, such as auto or cpu, got {name!r} ({reason})",
            field="device",
            value=name,
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of a name; "auto" is bfloat16 on a GPU that has it, else float32.

    On the CPU bfloat16 must be asked for: only float32 gives audiocraft's greedy tokens, and a seed
    should give the same music on processors that do not have bfloat16.

    Raises
    ------
    InvalidRequest
        When the name is unknown or the device cannot compute so.
    """
    if name == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    if name not in _DTYPES:
        raise InvalidRequest(
            f"dtype must be auto, {', '.join(_DTYPES)}, got {name!r}", field="dtype", value=name
        )
    if name == "float16" and device.type == "cpu":
        raise InvalidRequest(
            "dtype float16 overflows on the CPU; use float32 (float16 weights are read as they "
            "are) or bfloat16",
            field="dtype",
            value=name,
        )
    return _DTYPES[name]


def describe_device(device: torch.device) -> str:
    """Return a device's name for people, such as "cuda (NVIDIA A10)"."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return str(device)


def free_bytes(device: torch.device) -> int:
    """Return the memory that a device has left, in bytes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of tensors that are gone
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available_memory()
    limit, used = (_read_number(Path("/sys/fs/cgroup") / name) for name in _CGROUP_FILES)
    if limit is not None and used is not None:
        free = min(free, limit - used)
    return max(free, 0)


_CGROUP_FILES = ("memory.max", "memory.current")


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # not Linux: a guess


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return None


def slot_bytes(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> int:
    """Return the memory that one slot's caches may come to take, in bytes."""
    per_step = 2 * config.layers * config.dim * cache_dtype(device, dtype).itemsize
    return (ROWS_PER_SLOT * config.max_steps + PROMPT_TOKENS_COUNTED) * per_step


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was told, so that it can be timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_works(device: torch.device) -> bool:
    """Say whether a device still computes: after some errors a CUDA context is lost for good."""
    try:
        torch.ones(1, device=device).add_(1).item()  # which waits for the result
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def weight_bytes(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> int:
    """Return the memory that the weights will take, in bytes, by their headers."""

    def size(name: str) -> int:
        halves = half_weights_are_fast(device, dtype)
        kept = halves and checkpoint.stored_dtype(name) == torch.float16
        return math.prod(checkpoint.shape(name)) * (2 if kept else dtype.itemsize)

    return sum(map(size, checkpoint))


def choose_slots(
    asked: int | Literal["auto"],
    config: ModelConfig,
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
) -> int:
    """Return how many clips are made at once.

    Parameters
    ----------
    asked : int or "auto"
        "auto" takes as many as fit, at most 32.
    config, checkpoint, device, dtype
        The model, not yet loaded, and how it will compute.

    Raises
    ------
    InvalidRequest
        When not even one fits, or not as many as asked for.
    """
    size, free = slot_bytes(config, device, dtype), free_bytes(device)
    weights = weight_bytes(checkpoint, device, dtype)
    spare = size // ROWS_PER_SLOT if device.type == "cuda" else 0  # of `engine.graph`
    fitting = max(int((free - weights - spare) * _HEADROOM) // size, 0)
    memory = (
        f"{free / 2**30:.1f} GiB are free, the weights take {weights / 2**30:.1f} and each clip "
        f"may take {size / 2**30:.2f}"
    )
    if fitting < 1:
        raise InvalidRequest(
            f"not one clip fits on {device}: {memory}; use a smaller model or another device",
            field="slots",
            value=asked,
        )
    if asked == "auto":
        return min(fitting, AUTO_SLOTS_MAX)
    if not 1 <= asked <= fitting:
        raise InvalidRequest(
            f"slots must be from 1 to {fitting} on {device}, where {memory}, got {asked}; "
            "or use auto",
            field="slots",
            value=asked,
        )
    return asked
