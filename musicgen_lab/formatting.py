"""Formatting of fields, numbers and units as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def decimals_for(limits: tuple[float, float] | None) -> int:
    """Return how many decimals distinguish values between two limits, from 0 to 6.

    Three significant digits of the larger limit, and one more if the limits are close together.
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
    """Format a number with a minus sign (U+2212), and optionally a plus sign.

    Examples
    --------
    >>> signed(-1234.5, 1)
    '−1,234.5'
    """
    text = f"{value:{'+' if plus else ''},.{decimals}f}"
    return text.replace("-", "−")


def mid_sentence(label: str) -> str:
    """Return a label for the middle of a sentence: "onset rate", but "RMS level".

    Examples
    --------
    >>> mid_sentence("Onset rate"), mid_sentence("RMS level")
    ('onset rate', 'RMS level')
    """
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def with_unit(text: str, unit: str) -> str:
    """Append a number's unit; shares and booleans have none."""
    return text if " to " in unit or " or " in unit else f"{text} {unit}"


def value(measured: Any) -> str:
    """Format a feature's value: about three digits, yes or no, a dash for unknown."""
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
    """Format a feature's value with its unit, if it has one and is known."""
    text = value(measured)
    return with_unit(text, unit) if text not in ("–", "yes", "no") else text


def describe(fields: Mapping[str, Any]) -> str:
    """Format fields and their values in a line, such as "temperature 0.7, seed 0"."""
    return ", ".join(f"{name} {format_value(name, value)}" for name, value in fields.items())


def format_value(name: str, value: Any, *, shorten: int | None = 40) -> str:
    """Format a request field's value with its unit and without needless digits."""
    if isinstance(value, str):
        too_long = shorten is not None and len(value) > shorten
        return f"{value[: shorten - 1].rstrip()}…" if too_long and shorten else value
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} s" if name == "duration" else text
