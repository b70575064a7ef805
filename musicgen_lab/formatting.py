"""How fields, numbers and units are written for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def decimals_for(limits: tuple[float, float] | None) -> int:
    """Return how many decimals tell values between two limits apart, from 0 to 6.

    Three significant digits of the larger limit, and one more where they lie close together.
    """
    if limits is None:
        return 0
    low, high = limits
    size = max(abs(low), abs(high))
    if size == 0:
        return 0
    close = 0 < high - low < 0.05 * size
    return min(6, max(0, (3 if close else 2) - math.floor(math.log10(size))))


def signed(value: float, decimals: int, *, plus: bool = False) -> str:
    """Write a number with a real minus sign, and with a plus where wanted.

    Examples
    --------
    >>> signed(-1234.5, 1)
    '−1,234.5'
    """
    text = f"{value:{'+' if plus else ''},.{decimals}f}"
    return text.replace("-", "−")


def mid_sentence(label: str) -> str:
    """Write a label as it stands inside a sentence: its first letter small, "RMS level" as it is.

    Examples
    --------
    >>> mid_sentence("Onset rate"), mid_sentence("RMS level")
    ('onset rate', 'RMS level')
    """
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def with_unit(text: str, unit: str) -> str:
    """Write a number's unit after it; what is a share or a yes has none."""
    return text if " to " in unit or " or " in unit else f"{text} {unit}"


def value(measured: Any) -> str:
    """Write a feature's value for people: three digits or so, yes or no, a dash for unknown."""
    if measured is True or measured is False:
        return "yes" if measured else "no"
    if isinstance(measured, str):
        return measured
    if not isinstance(measured, int | float) or math.isnan(measured):
        return "–"
    if measured == 0:
        return "0"
    decimals = 0 if abs(measured) >= 1000 else 1 if abs(measured) >= 10 else 2
    if abs(measured) < 0.1:
        decimals = min(6, max(4, 1 - math.floor(math.log10(abs(measured)))))
    return signed(measured, decimals)


def value_with_unit(measured: Any, unit: str) -> str:
    """Write a feature's value with its unit, where it has one and is known."""
    text = value(measured)
    return with_unit(text, unit) if text not in ("–", "yes", "no") else text


def describe(fields: Mapping[str, Any]) -> str:
    """Say fields and their values in a line, such as "temperature 0.7, seed 0"."""
    return ", ".join(f"{name} {format_value(name, value)}" for name, value in fields.items())


def format_value(name: str, value: Any, *, shorten: int | None = 40) -> str:
    """Write a request field's value for people, with its unit and without needless digits."""
    if isinstance(value, str):
        too_long = shorten is not None and len(value) > shorten
        return f"{value[: shorten - 1].rstrip()}…" if too_long and shorten else value
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} s" if name == "duration" else text
