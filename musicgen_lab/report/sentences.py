"""What a run shows, said in sentences: effects, interactions, trends, and what remains open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from musicgen_lab.figures.facets import format_value
from musicgen_lab.formatting import decimals_for, mid_sentence, signed, with_unit

if TYPE_CHECKING:
    import pandas as pd


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


def interaction_sentence(interaction: Mapping[str, Any]) -> str:
    """Say in a sentence that what one parameter does depends on another, with the interval.

    Such as "Raising cfg_coef from 1 to 5 moves spectral centroid by +300 Hz at temperature 0.7 but
    by −50 Hz at 1.3 (difference −350 Hz, 95% interval −500 to −200, 6 seeds)."
    """
    from musicgen_lab.analysis.features import FEATURES

    feature = FEATURES[interaction["feature"]]
    first, second = interaction["first"], interaction["second"]
    numbers = [
        float(interaction[name]) for name in ("at_lowest", "at_highest", "change", "low", "high")
    ]
    decimals = decimals_for((0.0, max(map(abs, numbers))))
    # Rounded first, and 0 added, so that nothing is moved by minus zero.
    texts = [signed(round(number, decimals) + 0.0, decimals, plus=True) for number in numbers]
    at_lowest, at_highest, change = (with_unit(text, feature.unit) for text in texts[:3])
    start, end, lowest, highest = (
        format_value(interaction[which], interaction[f"{which}_{level}"])
        for which in ("first", "second")
        for level in ("lowest", "highest")
    )
    return (
        f"Raising {first} from {start} to {end} moves {mid_sentence(feature.label)} by {at_lowest} "
        f"at {second} {lowest} but by {at_highest} at {highest} (difference {change}, 95% interval "
        f"{texts[3]} to {texts[4]}, {interaction['seeds']} seeds)."
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
