"""`exact_convolutions`: cuDNN settings for deterministic convolutions in full precision."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_EXACT = True, "ieee", "ieee"
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Disable cuDNN kernels that are not deterministic or use TF32, within a block."""
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    with _one_at_a_time:  # the settings are those of the process
        before = cudnn.deterministic, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
        cudnn.deterministic, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = _EXACT
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = before
