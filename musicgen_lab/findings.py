"""What a run shows: the effects of its parameters, and the sentences that say them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.panels import format_value, records_of, values_of
from musicgen_lab.written import decimals_for, mid_sentence, signed, with_unit

if TYPE_CHECKING:
    import pandas as pd

    from musicgen_lab.results import Results

ALPHA = 0.05
"""The chance of even one false claim among all that a report says."""

DEFAULT_FEATURES = (
    "loudness_lufs",
    "spectral_centroid_hz",
    "onset_rate_hz",
    "silence_ratio",
    "spectral_flatness",
    "harmonic_ratio",
    "pitch_class_entropy",
    "self_similarity",
)
"""What a report looks at unless told otherwise: few, as each one more makes all less certain."""


def chosen_features(features: Iterable[str] | None = None) -> list[str]:
    """Return the names of the features to look at.

    Parameters
    ----------
    features : iterable of str, optional
        The default are those of `DEFAULT_FEATURES`.

    Raises
    ------
    InvalidRequest
        When one is unknown, or none is given.
    """
    from musicgen_lab.analysis.features import FEATURES

    if features is None:
        return list(DEFAULT_FEATURES)
    chosen = list(dict.fromkeys(features))
    for name in chosen:
        if name not in FEATURES:
            raise InvalidRequest(
                f"unknown feature {name!r}; the features are {', '.join(FEATURES)}",
                field="features",
                value=name,
            )
    if not chosen:
        raise InvalidRequest("give at least one feature", field="features")
    return chosen


def effects_of(results: Results, features: Iterable[str] | None = None) -> pd.DataFrame:
    """Return the main effect of every swept parameter on every feature.

    Parameters
    ----------
    results : Results
    features : iterable of str, optional
        As for `chosen_features`.

    Returns
    -------
    pandas.DataFrame
        As `Results.effects`, at an alpha of 0.05, with the
        parameter's lowest and highest level besides (`lowest`, `highest`); empty where nothing
        but the seed is swept.

    Raises
    ------
    InvalidRequest
        As `chosen_features`.
    """
    from musicgen_lab.analysis.features import NUMBERS

    names = [name for name in chosen_features(features) if name in NUMBERS]
    table = results.effects(names, alpha=ALPHA)
    if table.empty:
        return table
    levels = {name: values_of(records_of(results), name) for name in results.parameters}
    lowest = {name: values[0] for name, values in levels.items()}
    highest = {name: values[-1] for name, values in levels.items()}
    return table.assign(
        lowest=table["parameter"].map(lowest).astype(object),
        highest=table["parameter"].map(highest).astype(object),
    )


class StandsOut(NamedTuple):
    """What a run shows, in sentences.

    Attributes
    ----------
    held : list of str
        Effects that hold after correction, the surest first.
    remains_open : list of str
        What cannot be told, and why.
    questions : int
        How many were asked, and corrected for.
    """

    held: list[str]
    remains_open: list[str]
    questions: int


def what_stands_out(results: Results, features: Iterable[str] | None = None) -> StandsOut:
    """Say which parameters move which features, and of which it cannot be told.

    Grids are asked for main effects; a random design, in which no two clips differ in one
    parameter alone, for trends.

    Parameters
    ----------
    results : Results
    features : iterable of str, optional
        As for `chosen_features`.
    """
    from musicgen_lab.analysis.features import NUMBERS

    names = [name for name in chosen_features(features) if name in NUMBERS]
    designs = {sweep["design"]["kind"] for sweep in results.sweeps}
    if designs == {"sample"}:
        table = results.trends(names, alpha=ALPHA)
        held = [trend_sentence(trend) for trend in strongest(table)]
    else:
        table = effects_of(results, names)
        held = [sentence(effect) for effect in strongest(table)]
    questions = 0 if table.empty else int(table["p_value"].notna().sum())
    return StandsOut(held, what_cannot_be_said(table, names), questions)


def strongest(effects: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the effects that hold, the surest first."""
    if effects.empty:
        return []
    held = effects[effects["conclusive"]].sort_values("p_adjusted", kind="stable")
    return [{str(name): value for name, value in row.items()} for row in held.to_dict("records")]


def sentence(effect: Mapping[str, Any]) -> str:
    """Say an effect that holds in a sentence, with its interval.

    Such as "Onset rate rises with temperature: by 1.20 Hz from 0.7 to 1.3 (95% interval 0.80 to
    1.60, 4 seeds)."
    """
    from musicgen_lab.analysis.features import FEATURES

    feature = FEATURES[effect["feature"]]
    parameter = effect["parameter"]
    change, low, high = (float(effect[name]) for name in ("change", "low", "high"))
    decimals = decimals_for((0.0, max(abs(low), abs(high), abs(change))))
    interval = (
        f"95% interval {signed(low, decimals)} to {signed(high, decimals)}"
        if math.isfinite(low)
        else "no interval"
    )
    seeds = f"{effect['seeds']} seeds"
    if isinstance(effect["lowest"], str):
        return (
            f"{feature.label} differs between values of {parameter}: by up to "
            f"{with_unit(signed(change, decimals), feature.unit)} ({interval}, {seeds})."
        )
    verb = "rises" if change > 0 else "falls"
    if change < 0:
        low, high = -high, -low
        interval = f"95% interval {signed(low, decimals)} to {signed(high, decimals)}"
    ends = " to ".join(format_value(parameter, effect[end]) for end in ("lowest", "highest"))
    much = with_unit(signed(abs(change), decimals), feature.unit)
    return f"{feature.label} {verb} with {parameter}: by {much} from {ends} ({interval}, {seeds})."


def trend_sentence(trend: Mapping[str, Any]) -> str:
    """Say a trend that holds in a sentence, with the interval of its rank correlation."""
    from musicgen_lab.analysis.features import FEATURES

    rho, low, high = (signed(float(trend[name]), 2) for name in ("rho", "low", "high"))
    verb = "rises" if trend["rho"] > 0 else "falls"
    return (
        f"{FEATURES[trend['feature']].label} {verb} with {trend['parameter']}: rank correlation "
        f"{rho} (95% interval {low} to {high}, {trend['clips']} clips)."
    )


def what_cannot_be_said(effects: pd.DataFrame, features: Sequence[str]) -> list[str]:
    """Say in sentences where nothing can be concluded, and why."""
    if effects.empty:
        return ["Nothing but the seed was swept, so there is no effect to look for."]
    from musicgen_lab.analysis.features import FEATURES

    said = []
    for parameter, rows in effects.groupby("parameter", sort=False):
        held = rows[rows["conclusive"]]
        untested = rows[rows["p_value"].isna()]
        if len(untested) == len(rows):
            said.append(f"Nothing can be concluded about {parameter}: {_reasons(untested)}.")
            continue
        open_labels = [
            mid_sentence(FEATURES[name].label)
            for name in rows["feature"]
            if name not in set(held["feature"])
        ]
        if open_labels and len(open_labels) == len(features):
            said.append(
                f"No effect of {parameter} on any of {len(features)} features could be told from "
                "chance."
            )
        elif open_labels:
            said.append(f"Whether {parameter} changes {_list(open_labels)} remains open.")
    return said


def _reasons(rows: pd.DataFrame) -> str:
    reasons = list(dict.fromkeys(str(note) for note in rows["note"] if note))
    return "; ".join(reasons[:2])


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
