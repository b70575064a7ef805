"""What Modal's machines cost, as its price list had it on a day that is named here.

Modal tells no cost per call: seconds are measured where the clip is made, and multiplied with
these prices. They are estimates; the invoice decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from musicgen_lab.request import GenerationRequest

PRICES_DATE = "2026-07-01"

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
    "CPU": 0.0000131,
}
"""Dollars per second and GPU; "CPU" is one core."""

_SAME = {"A10G": "A10", "A100": "A100-40GB", "H100!": "H100"}

MEMORY_BYTES_PER_S: Mapping[str, float] = {
    "T4": 0.32e12,
    "L4": 0.30e12,
    "A10": 0.60e12,
    "L40S": 0.86e12,
    "A100-40GB": 1.55e12,
    "A100-80GB": 2.0e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "B200": 8.0e12,
    "CPU": 0.017e12,
}
"""Memory bandwidth by the makers' data sheets, in bytes per second."""


@dataclass(frozen=True)
class Cost:
    """What making clips takes and costs, about.

    Attributes
    ----------
    gpu : str
        The machine, as the price list names it.
    gpu_s : float
        Seconds of it.
    usd : float
        Dollars.
    priced_at : str
        The day of the price list, or "your own prices".
    """

    gpu: str
    gpu_s: float
    usd: float
    priced_at: str = PRICES_DATE

    def __str__(self) -> str:
        return f"{self.gpu_s:,.0f} s of {self.gpu}, about ${self.usd:,.2f} ({self.priced_at})"


@runtime_checkable
class Priced(Protocol):
    """A backend whose clips are paid for."""

    def estimate_cost(self, requests: Sequence[GenerationRequest]) -> Cost | None:
        """Return what making these would take and cost, about; None where nothing is known."""


def name_in_prices(device: str, prices: Mapping[str, float] = USD_PER_S) -> str | None:
    """Return what the price list calls a device; None when it does not have it.

    Parameters
    ----------
    device : str
        A Modal GPU name such as "A100", or what a clip's provenance says, such as
        "cuda (NVIDIA A10)" or "cpu".
    """
    if device in prices:
        return device
    if device.lower() == "cpu":
        return "CPU"
    if device in _SAME:
        return _SAME[device]
    said = device.upper()
    for name in sorted(prices, key=len, reverse=True):
        if name != "CPU" and all(part in said for part in name.upper().split("-")):
            return name
    return next((same for other, same in _SAME.items() if other in said), None)
