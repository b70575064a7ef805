"""`Upload`: a checkpoint's tensors on their way to a CUDA device, while other work goes on.

A copy from ordinary memory runs at a fraction of the bus's speed, as the driver stages it through a
small buffer of its own. Here a few threads read the file in large pieces into pinned buffers, from
which the device copies by itself; one thread's reading overlaps with another's copying.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.engine.checkpoint import PIECE_BYTES, READERS, Checkpoint


@dataclass(frozen=True)
class _Piece:
    """Elements `first` to `last` of a tensor."""

    name: str
    first: int
    last: int


class Upload:
    """Starts copying at once; `tensors` waits for the end.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : torch.device
        Of CUDA.
    dtype : torch.dtype
        To convert to, on the device.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._tensors = {
            name: torch.empty(checkpoint.shape(name), device=device, dtype=dtype)
            for name in checkpoint
        }
        self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # the memory may still be in use by what had it before
        self._ready.record(torch.cuda.current_stream(device))
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="upload")
        pieces = list(_cut(checkpoint))
        self._copies = [
            self._pool.submit(self._copy, pieces[thread::READERS]) for thread in range(READERS)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Wait until all is there, and return it."""
        with self._pool:
            for copy in self._copies:
                copy.result()
        return self._tensors

    @torch.inference_mode()
    def _copy(self, pieces: list[_Piece]) -> None:
        """Copy pieces one after another through a pinned buffer."""
        buffer = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_event(self._ready)
        with torch.cuda.stream(stream):
            for piece in pieces:
                stored = self._checkpoint.stored_dtype(piece.name) or torch.uint8
                size = stored.itemsize
                filled = buffer[: (piece.last - piece.first) * size]
                self._checkpoint.read_into(piece.name, piece.first * size, filled)
                copied = filled.view(stored).to(self._device, non_blocking=True)
                self._tensors[piece.name].view(-1)[piece.first : piece.last].copy_(copied)
                stream.synchronize()


def _cut(checkpoint: Checkpoint) -> Iterator[_Piece]:
    """Cut tensors into pieces that fit a buffer, in the order of the file."""
    for name in checkpoint:
        count = math.prod(checkpoint.shape(name))
        step = PIECE_BYTES // (checkpoint.stored_dtype(name) or torch.float64).itemsize
        for first in range(0, count, step):
            yield _Piece(name, first, min(first + step, count))
