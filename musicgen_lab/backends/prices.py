"""Modal's prices, as listed on `PRICES_DATE`.

Modal reports no cost per call: seconds are measured where the clip is made, and multiplied by these
prices. The results are estimates; the invoice is authoritative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from musicgen_lab.backends.gpus import ALIASES
from musicgen_lab.errors import InvalidRequest

if TYPE_CHECKING:
    from musicgen_lab.request import GenerationRequest

PRICES_DATE = "2026-07-01"
CPU, MEMORY = "CPU", "memory"

USD_PER_S: Mapping[str, float] = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
    CPU: 0.0000131,
    MEMORY: 0.00000222,
}
"""Dollars per second: of a GPU, of one core ("CPU"), and of one GiB ("memory")."""


@dataclass(frozen=True)
class Prices:
    """A price list.

    Attributes
    ----------
    usd_per_s : Mapping of str to float
        As `USD_PER_S`.
    priced_at : str
        The date of the list, as text.
    """

    usd_per_s: Mapping[str, float]
    priced_at: str

    @classmethod
    def with_own(cls, own: Mapping[str, float] | None = None) -> Prices:
        """Return the dated list, with a user's own prices replacing those of the same names.

        Raises
        ------
        InvalidRequest
            When a price is not a number of dollars.
        """
        if own is None:
            return cls(USD_PER_S, f"prices of {PRICES_DATE}")
        for name, usd in own.items():
            if not isinstance(usd, int | float) or not math.isfinite(usd) or usd < 0:
                raise InvalidRequest(
                    f"the price of {name!r} must be dollars per second, 0 or more, got {usd!r}",
                    field="prices",
                    value=usd,
                )
        renamed = {ALIASES.get(name, name): float(usd) for name, usd in own.items()}
        return cls({**USD_PER_S, **renamed}, "your own prices")

    def find(self, device: str) -> str | None:
        """Return a device's name in the list, or None if it is not in it.

        Parameters
        ----------
        device : str
            A Modal GPU name such as "A100", or a device from a clip's provenance, such as
            "cuda (NVIDIA A10)" or "cpu".
        """
        if device.lower() == "cpu":
            return CPU
        gpus = self.usd_per_s.keys() - {CPU, MEMORY}
        if device in gpus:
            return device
        if device in ALIASES:
            return ALIASES[device]
        upper_name = device.upper()
        for name in sorted(gpus, key=lambda name: (-len(name), name)):
            if all(part in upper_name for part in name.upper().split("-")):
                return name
        return next((same for other, same in ALIASES.items() if other in upper_name), None)

    def of_container(self, gpu: str, *, cores: float, memory_gib: float) -> float:
        """Return the cost of a container in dollars per second.

        Parameters
        ----------
        gpu : str
            Its name in the list; "CPU" for none.
        cores, memory_gib : float
            What the container reserves. Modal charges more if more is used.
        """
        usd = cores * self.usd_per_s[CPU] + memory_gib * self.usd_per_s[MEMORY]
        return usd if gpu == CPU else usd + self.usd_per_s[gpu]


@dataclass(frozen=True)
class Cost:
    """An estimate of the machine time and the cost of making clips.

    Attributes
    ----------
    gpu : str
        The machine's name in the price list.
    gpu_s : float
        Seconds of it.
    usd : float
        Dollars for the GPU with the container's cores and memory.
    priced_at : str
        The source and the date of the prices.
    otherwise : tuple of Cost
        The same for the other machines that may be used when the first is not available.
    """

    gpu: str
    gpu_s: float
    usd: float
    priced_at: str
    otherwise: tuple[Cost, ...] = ()

    def __str__(self) -> str:
        others = "".join(
            f"; {other.gpu_s:,.0f} s of {other.gpu}, about ${other.usd:,.2f}, "
            f"where no {self.gpu} is free"
            for other in self.otherwise
        )
        return (
            f"{self.gpu_s:,.0f} s of {self.gpu}, about ${self.usd:,.2f}{others} ({self.priced_at})"
        )


@runtime_checkable
class Priced(Protocol):
    """A backend whose clips cost money."""

    def estimate_cost(self, requests: Sequence[GenerationRequest]) -> Cost | None:
        """Return the estimated time and cost of making these; None if unknown."""
