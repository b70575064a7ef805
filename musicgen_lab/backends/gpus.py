"""The GPUs that Modal rents: what each holds and how fast it reads, by the makers' data sheets.

Standard library alone: `modal deploy` reads this on machines that have nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 2**20  # bytes


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes
    ----------
    memory_bytes : int
        What its driver reports as the whole.
    bytes_per_s : float
        Bandwidth of its memory.
    """

    memory_bytes: int
    bytes_per_s: float


GPUS: Mapping[str, Gpu] = {
    "T4": Gpu(15_360 * MIB, 0.32e12),
    "L4": Gpu(23_034 * MIB, 0.30e12),
    "A10": Gpu(23_028 * MIB, 0.60e12),
    "L40S": Gpu(46_068 * MIB, 0.86e12),
    "A100-40GB": Gpu(40_960 * MIB, 1.55e12),
    "A100-80GB": Gpu(81_920 * MIB, 2.0e12),
    "H100": Gpu(81_559 * MIB, 3.35e12),
    "H200": Gpu(143_771 * MIB, 4.8e12),
    "B200": Gpu(183_359 * MIB, 8.0e12),
}

ALIASES: Mapping[str, str] = {"A10G": "A10", "A100": "A100-40GB", "H100!": "H100"}
"""Other names that Modal takes; "A100" and "H100" may also get a larger card of their kind."""
