"""`record_on_cuda`: a step recorded once on a CUDA device, and replayed.

A step of a large model is hundreds of kernels, and starting them one by one takes longer than they
run. A CUDA graph starts them all at once, but only with the memory and the shapes of its recording:
so a step reads all that changes from tensors that stay where they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

Recording = Callable[[], None]  # replays what was recorded
_WARM_UPS = 3
_one_at_a_time = threading.Lock()  # a recording forbids others, of whichever engine, to begin one


def record_on_cuda(device: torch.device, run: Callable[[], None]) -> Recording:
    """Record what a function does on a CUDA device, and return what does it again.

    It is run a few times before, so that kernels are compiled and workspaces taken by then.

    Raises
    ------
    RuntimeError
        When it does something that cannot be recorded.
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
