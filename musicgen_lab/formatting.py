"""Formatting of fields, numbers and units as text."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROMPT_CHARACTERS_MAX = 24
LABEL_CHARACTERS_MAX = 36
MEANT_MAX = 3  # names that a part of one may stand for
IN_SECONDS = ("duration", "extend_stride", "begin_at", "begin_s")


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


def short(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Return a value as text of at most 60 characters, as Python or another `write` has it."""
    text = write(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def split_names(text: str) -> list[str]:
    """Split names at commas, without the spaces around them.

    Examples
    --------
    >>> split_names("html, ipynb")
    ['html', 'ipynb']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """Return " (did you mean …?)" for a name that is unknown; empty if none of the names is alike.

    Parameters
    ----------
    given : object
        The unknown name. Case, spaces and hyphens do not matter.
    names : iterable of str
        Those that there are: up to three with a word that begins with the given one are named, or
        else the one that is most alike.

    Examples
    --------
    >>> did_you_mean("promt", ["prompt", "prompt_b"]), did_you_mean("Top", ["top_k", "top_p"])
    (' (did you mean prompt?)', ' (did you mean top_k or top_p?)')
    """
    text, known = re.sub(r"\W+", "_", str(given)).lower(), list(names)
    meant = [text] if text in known else []
    if len(text) > 2:
        meant = meant or [name for name in known if f"_{text}" in f"_{name}"][:MEANT_MAX]
    meant = meant or difflib.get_close_matches(text, known, n=1)
    return f" (did you mean {' or '.join(meant)}?)" if meant else ""


def decimals_within(low: float, high: float) -> int:
    """Return how many decimals an estimate deserves, from 0 to 6: two digits of its uncertainty.

    Parameters
    ----------
    low, high : float
        The ends of the estimate's interval; three significant digits where it has no width.

    Examples
    --------
    >>> decimals_within(0.0182, 0.0608), decimals_within(-500, -200)
    (3, 0)
    """
    half_width = (high - low) / 2
    if not half_width > 0:
        return decimals_for((0.0, max(abs(low), abs(high))))
    return min(6, max(0, 1 - math.floor(math.log10(half_width))))


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
    decimals = 0 if abs(measured) >= 100 else 1 if abs(measured) >= 10 else 2
    if abs(measured) < 0.1:
        decimals = min(6, max(3, 1 - math.floor(math.log10(abs(measured)))))
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
    if name == "begin_with" and isinstance(value, str):
        return f"{value[:12]}…" if value else "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        if not value:
            return "none"
        too_long = shorten is not None and len(value) > shorten
        return f"{value[: shorten - 1].rstrip()}…" if too_long and shorten else value
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if name == "begin_s" and value is None:
        return "all"
    return f"{text} s" if name in IN_SECONDS else text


@dataclass(frozen=True)
class FieldLabels:
    """How the values of request fields are written in the figures and pages of a run.

    Attributes
    ----------
    prompts : Mapping of str to str
        The label of every prompt.
    is_numbered : bool
        Whether the labels of the prompts start with a number, in the order of the run.
    sources : Mapping of str to str
        The label of everything that clips begin with, by digest.
    """

    prompts: Mapping[str, str]
    is_numbered: bool
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, prompts: Sequence[str], sources: Mapping[str, str] | None = None) -> FieldLabels:
        """Label the prompts and sources of a run, so that no two of them look the same.

        Several prompts of which one has more than 24 characters are numbered, and shortened to the
        part in which they differ.

        Examples
        --------
        >>> start = "a slow ballad on a rainy evening, "
        >>> labels = FieldLabels.of([start + "with drums", start + "with a choir", "calm guitar"])
        >>> list(labels.prompts.values())
        ['1: …drums', '2: …a choir', '3: calm guitar']
        """
        is_numbered = len(prompts) > 1 and max(map(len, prompts)) > PROMPT_CHARACTERS_MAX
        if not is_numbered:
            labels = {prompt: format_value("prompt", prompt) for prompt in prompts}
            return cls(labels, False, _distinct_names(sources or {}))
        return cls(
            {
                prompt: f"{number}: {_distinct_part(prompt, prompts)}"
                for number, prompt in enumerate(prompts, 1)
            },
            True,
            _distinct_names(sources or {}),
        )

    def value(self, name: str, value: Any) -> str:
        """Write a field's value; see `format_value`."""
        labels = {"prompt": self.prompts, "begin_with": self.sources}.get(name, {})
        return labels.get(value) or format_value(name, value)

    def describe(self, fields: Mapping[str, Any]) -> str:
        """Write fields and their values in a line, such as "temperature 0.7, seed 0"."""
        return ", ".join(f"{name} {self.value(name, value)}" for name, value in fields.items())


def _distinct_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return names by digest, with the start of the digest where several have the same name."""
    counts = Counter(names.values())
    return {
        digest: f"{name} ({digest[:6]})" if counts[name] > 1 else name
        for digest, name in names.items()
    }


def _distinct_part(prompt: str, prompts: Sequence[str]) -> str:
    """Shorten a prompt, from its start where that tells it from the others."""
    words = prompt.split()
    shared = max(_common_words(words, other.split()) for other in prompts if other != prompt)
    if len(" ".join(words[: shared + 1])) < LABEL_CHARACTERS_MAX:
        return format_value("prompt", prompt, shorten=LABEL_CHARACTERS_MAX)
    rest = words[shared:] or words[-3:]  # another prompt goes on where this one ends
    return format_value("prompt", f"…{' '.join(rest)}", shorten=LABEL_CHARACTERS_MAX)


def _common_words(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many words two texts have in common at their start."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(a), len(b)))
