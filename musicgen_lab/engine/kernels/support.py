"""Whether Triton works on a device."""

from __future__ import annotations

import functools
import warnings

import torch

from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.errors import MusicGenLabWarning


@functools.cache
def triton_works(device: torch.device) -> bool:
    """Return whether Triton compiles and runs a kernel on a device.

    It needs Triton, which comes with torch on Linux, and a C compiler.
    """
    if device.type != "cuda":
        return False
    try:
        from musicgen_lab.engine.kernels.attention import Attention

        zero = torch.zeros(1, dtype=torch.long, device=device)
        cache = torch.ones(2, 1, 1, 1, 64, device=device)
        spans = AttentionSpans(zero[:, None], zero + 1)
        with torch.cuda.device(device):
            Attention(1, 1, 64, 1, device)(cache[:1, 0, 0], cache, spans)
    except torch.OutOfMemoryError:  # says nothing about the kernel
        raise
    except Exception as error:  # of compilers or drivers, of any type
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"triton cannot make kernels here ({reason}); clips will take longer, and may differ "
            "in their last bits beside others. A C compiler such as gcc is what it mostly lacks",
            MusicGenLabWarning,
            stacklevel=2,
        )
        return False
    return True
