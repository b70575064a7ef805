"""`profile`: the lab engine's time by classes of kernels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from musicgen_lab.models.library_noise import quiet

# The first class whose pattern is found in a kernel's name takes it.
_CLASSES = [
    ("attention", r"attend|attention|flash|fmha"),
    ("codec", r"rnn|lstm|conv|fprop|dgrad|winograd|reflection|(?<!g)elu"),
    ("products", r"multiply_rows|gemm|gemv|cutlass|nvjet|splitk|linear|addmm|::mm$|matmul|cublas"),
    ("normalisation", r"normalise|norm"),
    ("sampling", r"sample|topk|sort|scan|cumsum|searchsorted|bucketize|softmax|argmax|radix"),
    ("copies", r"memcpy|memset|copy|::cat|catarray|fill|zero"),
]
_REST = "other"


@dataclass(frozen=True)
class KernelClass:
    """The time of the kernels of one class.

    Attributes
    ----------
    name : str
    seconds : float
        On a GPU the device's time, where kernels overlap that of the one that started first;
        otherwise the time of all threads that ran operators.
    share : float
        Of the sum of all classes, 0 to 1.
    count : int
        Kernels on a GPU, operators elsewhere.
    """

    name: str
    seconds: float
    share: float
    count: int


def profile(work: Callable[[], object], device: torch.device) -> list[KernelClass]:
    """Run work once under torch's profiler.

    Parameters
    ----------
    work : callable
        Warmed up, so that nothing is compiled or recorded in it.
    device : torch.device
        On a GPU its kernels are counted, on the CPU operators.

    Returns
    -------
    list of KernelClass
        By descending time.
    """
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with quiet(), torch.profiler.profile(activities=[activity], acc_events=True) as profiler:
        work()
    totals: dict[str, tuple[float, int]] = {}
    for kernel, spent_us, calls in _kernel_times(profiler) if on_gpu else _operator_times(profiler):
        name = classify(kernel)
        seconds, count = totals.get(name, (0.0, 0))
        totals[name] = seconds + spent_us / 1e6, count + calls
    whole_s = sum(seconds for seconds, _ in totals.values()) or 1.0
    classes = [KernelClass(n, s, s / whole_s, count) for n, (s, count) in totals.items()]
    return sorted(classes, key=lambda each: -each.seconds)


def _operator_times(profiler: torch.profiler.profile) -> Iterator[tuple[str, float, int]]:
    for operator in profiler.key_averages():
        yield operator.key, operator.self_cpu_time_total, operator.count


def _kernel_times(profiler: torch.profiler.profile) -> Iterator[tuple[str, float, int]]:
    events = profiler.events()  # type: ignore[no-untyped-call]
    kernels = [event for event in events if event.device_type.name == "CUDA"]
    kernels.sort(key=lambda kernel: kernel.time_range.start)
    spans = [(kernel.time_range.start, kernel.time_range.end) for kernel in kernels]
    for kernel, spent_us in zip(kernels, exclusive_times(spans), strict=True):
        yield kernel.name, spent_us, 1


def exclusive_times(spans: Iterable[tuple[float, float]]) -> Iterator[float]:
    """Yield how long each span lasts after all earlier ones have ended.

    A kernel that was started before the previous one ended waits for it (programmatic dependent
    launch), and that time is not its own.

    Parameters
    ----------
    spans : iterable of (float, float)
        Starts and ends, ordered by starts.
    """
    busy_until = float("-inf")
    for start, end in spans:
        yield max(end - max(start, busy_until), 0.0)
        busy_until = max(end, busy_until)


def classify(kernel: str) -> str:
    """Return the class of a kernel or operator by its name."""
    lowered = kernel.lower()
    return next((name for name, pattern in _CLASSES if re.search(pattern, lowered)), _REST)


def format_profile(classes: Sequence[KernelClass]) -> str:
    """Return a table for people."""
    head = f"{'kernels':<14}{'ms':>9}{'share':>7}{'count':>9}"
    rows = [
        f"{each.name:<14}{1000 * each.seconds:>9.1f}{each.share:>7.0%}{each.count:>9,}"
        for each in classes
    ]
    return "\n".join([head, *rows])
