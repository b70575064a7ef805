"""The GPUs that Modal offers: memory and bandwidth from the manufacturers' data sheets.

Standard library only: `modal deploy` imports this on machines without other packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30  # bytes


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes
    ----------
    memory_bytes : int
        Memory available to programs.
    bytes_per_s : float
        Bandwidth of its memory.
    """

    memory_bytes: int
    bytes_per_s: float


GPUS: Mapping[str, Gpu] = {
    "T4": Gpu(int(14.5 * GIB), 0.32e12),
    "L4": Gpu(int(21.9 * GIB), 0.30e12),
    "A10": Gpu(int(21.9 * GIB), 0.60e12),
    "L40S": Gpu(int(44.3 * GIB), 0.86e12),
    "A100-40GB": Gpu(int(39.3 * GIB), 1.55e12),
    "A100-80GB": Gpu(int(79.1 * GIB), 2.0e12),
    "H100": Gpu(int(79.0 * GIB), 3.35e12),
    "H200": Gpu(int(139.7 * GIB), 4.8e12),
    "B200": Gpu(int(178.3 * GIB), 8.0e12),
}

ALIASES: Mapping[str, str] = {"A10G": "A10", "A100": "A100-40GB", "H100!": "H100"}
"""Other names that Modal takes; "A100" and "H100" may also get a larger card of their kind."""
