"""The choice of device, precision, and the number of clips that fit there at once."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Literal

import torch

from musicgen_lab.engine.capacity import (
    AUTO_CLIPS_MAX,
    AUTO_CLIPS_MAX_GPU,
    BESIDE_BYTES,
    CACHE_SHARE,
    GPU_BLOCK_LEN,
    Capacity,
    block_bytes,
    plan_capacity,
    weight_bytes,
)
from musicgen_lab.engine.linear import half_weights_are_fast
from musicgen_lab.engine.transformer import cache_dtype
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.config import ModelConfig

CPU_BLOCK_LEN = 512  # steps; memory is only taken up as they are written
_CGROUP = Path("/sys/fs/cgroup")  # of this process, in a container
_HEADROOM = 0.8  # of a machine's free memory: text encoder, codec and the system want some
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

    On the CPU bfloat16 is never automatic: only float32 gives audiocraft's greedy tokens, and a
    seed should give the same music on processors without bfloat16.

    Raises
    ------
    InvalidRequest
        When the name is unknown or the device does not support it.
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
    """Return a device's free memory, in bytes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of tensors that are gone
        return int(torch.cuda.mem_get_info(device)[0])
    return max(min(_available_memory(), _available_in_container()), 0)


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # not Linux: a guess


def _available_in_container() -> int:
    """Return what a control group's limit leaves; as much as there can be where it has none.

    Cached files count as used there, but make room.
    """
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(map(str.split, (_CGROUP / "memory.stat").read_text().splitlines()))
        return limit - used + int(counts["inactive_file"]) + int(counts["active_file"])
    except (OSError, ValueError, KeyError):  # no such limit, or "max"
        return sys.maxsize


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all its work, for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_works(device: torch.device) -> bool:
    """Return whether a device still works: some errors destroy a CUDA context for good."""
    try:
        torch.ones(1, device=device).add_(1).item()  # which waits for the result
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def choose_capacity(
    max_clips: int | Literal["auto"], config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Capacity:
    """Return how many clips can be made at once, and their number of cache blocks.

    Parameters
    ----------
    max_clips : int or "auto"
        The most clips made at once; "auto" takes as many as fit, at most 64 on a GPU and 32
        elsewhere.
    config, device, dtype
        The model, not yet loaded, its device and its precision.

    Raises
    ------
    InvalidRequest
        When not even one fits, or fewer than requested.
    """
    halves = half_weights_are_fast(device, dtype) and config.dtype == "float16"
    weights = weight_bytes(config, 2 if halves else dtype.itemsize)
    dtype_bytes, free = cache_dtype(device, dtype).itemsize, free_bytes(device)
    if device.type == "cuda":
        block_len, auto_clips = GPU_BLOCK_LEN, AUTO_CLIPS_MAX_GPU
        cache_bytes = int((free - weights - BESIDE_BYTES) * CACHE_SHARE)
    else:
        block_len, auto_clips = CPU_BLOCK_LEN, AUTO_CLIPS_MAX
        cache_bytes = int((free - weights) * _HEADROOM)
    plan = functools.partial(
        plan_capacity,
        config,
        cache_bytes,
        dtype_bytes=dtype_bytes,
        block_len=block_len,
        auto_clips=auto_clips,
    )
    whole = plan()
    size = whole.clip_blocks(config.window_s) * block_bytes(config, dtype_bytes, block_len)
    memory = (
        f"{free / 2**30:.1f} GiB are free, the weights take {weights / 2**30:.1f} and a clip of "
        f"{config.window_s:g} s {size / 2**30:.2f}"
    )
    if whole.max_clips < 1:
        raise InvalidRequest(
            f"not one clip fits on {device}: {memory}; use a smaller model or another device",
            field="max_clips",
            value=max_clips,
        )
    if max_clips == "auto":
        return whole
    most = plan(max_clips=cache_bytes).max_clips
    if not 1 <= max_clips <= most:
        raise InvalidRequest(
            f"max_clips must be from 1 to {most} on {device}, where {memory}, got {max_clips}; "
            "or use auto",
            field="max_clips",
            value=max_clips,
        )
    return plan(max_clips=max_clips)
