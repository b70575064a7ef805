# ruff: noqa: ANN201 (triton's functions return what they like)
"""Programmatic dependent launch: a kernel starts while the one before it still runs.

On GPUs of compute capability 9.0 and later, a kernel that was launched with `launch_pdl=True` may
start as soon as every program of the kernel before it has called `let_next_start` or has ended.
Until it calls `wait_for_previous` it may only read what was written before the step began, such as
weights and the keys of earlier steps. Every program of every kernel in a chain calls
`wait_for_previous`, so that the end of one kernel means the end of all before it; the first kernel
of a chain is launched without it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_CAPABILITY = (9, 0)


def has_dependent_launch(device: torch.device) -> bool:
    """Return whether a device can start a kernel before the previous one has ended."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY


@triton.jit  # type: ignore[misc, untyped-decorator]
def let_next_start(DEPENDENT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Allow the next kernel to start beside this one."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit  # type: ignore[misc, untyped-decorator]
def wait_for_previous(DEPENDENT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Wait until the kernel before this one has ended and its results can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
