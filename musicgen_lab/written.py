"""How measured numbers are written for people."""

from __future__ import annotations

import math


def decimals_for(limits: tuple[float, float] | None) -> int:
    """Return how many decimals tell values between two limits apart, from 0 to 4.

    Three significant digits of the larger limit, and one more where they lie close together.
    """
    if limits is None:
        return 0
    low, high = limits
    size = max(abs(low), abs(high))
    if size == 0:
        return 0
    close = 0 < high - low < 0.05 * size
    return min(4, max(0, (3 if close else 2) - math.floor(math.log10(size))))


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
