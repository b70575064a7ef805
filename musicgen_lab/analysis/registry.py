"""The registry of features: each is one function of a sound, registered where it is defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from musicgen_lab.analysis.sound import Sound

Kind: TypeAlias = Literal["number", "yes or no", "text"]
Value: TypeAlias = float | bool | str | None
Measure: TypeAlias = Callable[[Sound], Value]
M = TypeVar("M", bound=Measure)


@dataclass(frozen=True)
class Feature:
    """The definition of a feature, for people and for the code that measures it.

    Attributes
    ----------
    name : str
        Its column in the frame: the name of its function.
    label : str
        A name for what is heard, for axes, tables and sentences; of a yes or no an adjective.
    unit : str
    measure : callable
        From a `Sound` to the value. Its docstring says what is measured, from which source, on
        which known truth it was tested and where it fails.
    kind : {"number", "yes or no", "text"}
    default : bool
        Whether a study looks at it unless it names its features.
    of_silence : bool
        Whether a silent clip has it. Other features are NaN, or None, for silent clips.
    """

    name: str
    label: str
    unit: str
    measure: Measure
    kind: Kind = "number"
    default: bool = False
    of_silence: bool = False

    @property
    def description(self) -> str:
        """The first paragraph of the docstring: one sentence on what is measured."""
        return " ".join((inspect.getdoc(self.measure) or "").split("\n\n")[0].split())

    @property
    def mean_label(self) -> str:
        """A name for its mean over clips: that of a yes or no is a share of them."""
        is_share = self.kind == "yes or no"
        return f"The share of {self.label.lower()} clips" if is_share else self.label

    @property
    def difference_unit(self) -> str:
        """The unit of a difference between two values: LU for LUFS, dB for dBFS."""
        return {"LUFS": "LU", "dBFS": "dB", "yes or no": "0 to 1"}.get(self.unit, self.unit)

    @property
    def unknown(self) -> Value:
        """The value of a clip that does not have this feature."""
        return None if self.kind == "text" else float("nan")


@dataclass(frozen=True)
class RunFeature:
    """A number that a clip only has as part of a run, such as its distance from other seeds.

    Attributes
    ----------
    name, label, unit : str
        As of a `Feature`.
    description : str
        One sentence on what is measured.
    """

    name: str
    label: str
    unit: str
    description: str
    kind: Kind = "number"

    @property
    def mean_label(self) -> str:
        """A name for its mean over clips."""
        return self.label

    @property
    def difference_unit(self) -> str:
        """The unit of a difference between two values."""
        return self.unit


REGISTERED: dict[str, Feature] = {}
"""The features of all modules that have been imported; `features.FEATURES` is the whole list."""


def feature(
    label: str,
    unit: str,
    *,
    kind: Kind = "number",
    default: bool = False,
    of_silence: bool = False,
) -> Callable[[M], M]:
    """Register a function as a feature; the parameters are the attributes of `Feature`."""

    def register(measure: M) -> M:
        name = measure.__name__
        REGISTERED[name] = Feature(name, label, unit, measure, kind, default, of_silence)
        return measure

    return register
