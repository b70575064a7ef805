"""`move_weights`: copies a checkpoint to a CUDA device while other work goes on.

A copy from pageable memory runs at a fraction of the bus's speed, as the driver stages it through a
small buffer. Here a few threads read the file in large chunks into pinned buffers, from which the
device copies asynchronously; reading in one thread overlaps with copying in another.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.models.checkpoint import PIECE_BYTES, READERS, Checkpoint


@dataclass(frozen=True)
class _Piece:
    """Elements `first` to `last` of a tensor."""

    name: str
    first: int
    last: int


@contextmanager
def move_weights(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
    """Start moving weights to a device, and yield a function that waits for them.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : torch.device
        If it is not a CUDA device, nothing is moved: the function returns the checkpoint.
    dtype : torch.dtype
        To convert to on a CUDA device.
    """
    if device.type != "cuda":
        yield lambda: checkpoint
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="upload") as readers:
        upload = Upload(checkpoint, device, dtype, readers)
        try:
            yield upload.tensors
        finally:
            upload.cancel()


class Upload:
    """Starts copying when created; `tensors` waits for the end.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : torch.device
        Of CUDA.
    dtype : torch.dtype
        To convert to, on the device.
    readers : ThreadPoolExecutor
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        readers: ThreadPoolExecutor,
    ) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._tensors = {
            name: torch.empty(checkpoint.shape(name), device=device, dtype=dtype)
            for name in checkpoint
        }
        # The memory may still be in use by its previous owner.
        self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._ready.record(torch.cuda.current_stream(device))
        self._cancelled = threading.Event()
        pieces = list(_cut(checkpoint))
        self._copies = [readers.submit(self._copy, pieces[i::READERS]) for i in range(READERS)]

    def tensors(self) -> dict[str, Tensor]:
        """Wait for all tensors, and return them."""
        for copy in self._copies:
            copy.result()
        return self._tensors

    def cancel(self) -> None:
        """Stop copying."""
        self._cancelled.set()

    @torch.inference_mode()
    def _copy(self, pieces: list[_Piece]) -> None:
        """Copy chunks one after another through a pinned buffer."""
        buffer = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_event(self._ready)
        with torch.cuda.stream(stream):
            for piece in pieces:
                if self._cancelled.is_set():
                    return
                stored = self._checkpoint.stored_dtype(piece.name) or torch.uint8
                size = stored.itemsize
                filled = buffer[: (piece.last - piece.first) * size]
                self._checkpoint.read_into(piece.name, piece.first * size, filled)
                copied = filled.view(stored).to(self._device, non_blocking=True)
                self._tensors[piece.name].view(-1)[piece.first : piece.last].copy_(copied)
                stream.synchronize()


def _cut(checkpoint: Checkpoint) -> Iterator[_Piece]:
    """Split tensors into chunks that fit a buffer, in the order of the file."""
    for name in checkpoint:
        count = math.prod(checkpoint.shape(name))
        step = PIECE_BYTES // (checkpoint.stored_dtype(name) or torch.float64).itemsize
        for first in range(0, count, step):
            yield _Piece(name, first, min(first + step, count))
