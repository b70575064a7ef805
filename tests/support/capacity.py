"""How many clips a GPU holds that is not here, by the engine's own arithmetic."""

from typing import Literal

from musicgen_lab.engine.capacity import (
    BESIDE_BYTES,
    CACHE_SHARE,
    GIB,
    Capacity,
    plan_capacity,
    weight_bytes,
)
from musicgen_lab.models.config import ModelConfig

CONTEXT_BYTES = int(0.6 * GIB)  # CUDA's, with the kernels of torch, cuBLAS and cuDNN


def capacity_on_gpu(
    config: ModelConfig, memory_bytes: int, max_clips: int | Literal["auto"] = "auto"
) -> Capacity:
    """Return the capacity of an engine that has a GPU to itself and computes in 16 bits.

    Parameters
    ----------
    config : ModelConfig
    memory_bytes : int
        The GPU's memory available to programs.
    max_clips : int or "auto"
        The most clips made at once.

    Returns
    -------
    Capacity
        With 0 clips if the model does not fit.
    """
    taken = CONTEXT_BYTES + BESIDE_BYTES + weight_bytes(config, 2)
    cache_bytes = max(int((memory_bytes - taken) * CACHE_SHARE), 0)
    return plan_capacity(config, cache_bytes, dtype_bytes=2, max_clips=max_clips)
