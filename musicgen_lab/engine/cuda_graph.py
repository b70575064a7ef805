"""`record_on_cuda`: a step recorded once as a CUDA graph, and replayed.

A step of a large model has hundreds of kernels, and launching them one by one takes longer than
running them. A CUDA graph launches them all at once, but only with the addresses and the shapes of
its recording: so a step reads everything that changes from tensors with fixed addresses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Recording = Callable[[], None]  # replays a recording
_WARM_UPS = 3
_one_at_a_time = threading.Lock()  # a recording forbids others, of whichever engine, to begin one


def record_on_cuda(device: torch.device, run: Callable[[], None]) -> Recording:
    """Record a function's work on a CUDA device, and return a function that replays it.

    It is run a few times first, so that kernels are compiled and workspaces are allocated.

    Raises
    ------
    RuntimeError
        When an operation in it cannot be recorded.
    """
    with _one_at_a_time, torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.stream(side),  # and back, also when the recording fails
                torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"),
            ):
                run()
        except RuntimeError as error:
            raise RuntimeError(
                f"a step could not be recorded ({error}); turn CUDA graphs off to go without"
            ) from error
    return graph.replay
