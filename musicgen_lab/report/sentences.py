"""The findings of a run in sentences: effects, interactions, trends, and what is inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from musicgen_lab.analysis.features import FEATURES
from musicgen_lab.formatting import decimals_for, format_value, mid_sentence, signed, with_unit
from musicgen_lab.stats.comparison import Comparison
from musicgen_lab.stats.study_tables import StudyTables, conclusive, tested

if TYPE_CHECKING:
    import pandas as pd


class Findings(NamedTuple):
    """What a run shows, in sentences.

    Attributes
    ----------
    significant : list of str
        Effects and interactions that hold after correction, the surest first.
    inconclusive : list of str
        Where nothing can be concluded, and why.
    questions : int
        How many were tested, and corrected for.
    about_interactions : int
        How many of them ask whether the effect of one parameter depends on another.
    """

    significant: list[str]
    inconclusive: list[str]
    questions: int
    about_interactions: int = 0


def find(study: StudyTables) -> Findings:
    """Say which parameters move which features, and where that is inconclusive.

    Grids are asked for main effects and interactions; a random design, in which no two clips
    differ in one parameter alone, for trends.
    """
    if study.is_random_design:
        sentences = [trend_sentence(trend) for trend in conclusive(study.trends)]
        return Findings(
            sentences, inconclusive_sentences(study.trends, study.features), tested(study.trends)
        )
    claims = [(row["p_adjusted"], effect_sentence(row)) for row in conclusive(study.effects)]
    claims += [
        (row["p_adjusted"], interaction_sentence(row)) for row in conclusive(study.interactions)
    ]
    crossed = tested(study.interactions)
    return Findings(
        [sentence for _, sentence in sorted(claims, key=lambda claim: claim[0])],
        inconclusive_sentences(study.effects, study.features),
        tested(study.effects) + crossed,
        crossed,
    )


def effect_sentence(effect: Mapping[str, Any]) -> str:
    """Say an effect that holds in a sentence, with its interval.

    Such as "Onset rate rises with temperature: by 1.20 per second from 0.7 to 1.3 (95%
    interval 0.80 to 1.60, 4 seeds)."
    """
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
            f"{with_unit(signed(change, decimals), feature.difference_unit)} ({interval}, {seeds})."
        )
    verb = "rises" if change > 0 else "falls"
    if change < 0:
        low, high = -high, -low
        interval = f"95% interval {signed(low, decimals)} to {signed(high, decimals)}"
    ends = " to ".join(format_value(parameter, effect[end]) for end in ("lowest", "highest"))
    much = with_unit(signed(abs(change), decimals), feature.difference_unit)
    return f"{feature.label} {verb} with {parameter}: by {much} from {ends} ({interval}, {seeds})."


def trend_sentence(trend: Mapping[str, Any]) -> str:
    """Say a trend that holds in a sentence, with the interval of its rank correlation."""
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
    feature = FEATURES[interaction["feature"]]
    first, second = interaction["first"], interaction["second"]
    numbers = [
        float(interaction[name]) for name in ("at_lowest", "at_highest", "change", "low", "high")
    ]
    decimals = decimals_for((0.0, max(map(abs, numbers))))
    # Rounded first, and 0 added, so that nothing is moved by minus zero.
    texts = [signed(round(number, decimals) + 0.0, decimals, plus=True) for number in numbers]
    at_lowest, at_highest, change = (with_unit(text, feature.difference_unit) for text in texts[:3])
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


def inconclusive_sentences(effects: pd.DataFrame, features: Sequence[str]) -> list[str]:
    """Say in sentences where nothing can be concluded, and why."""
    if effects.empty:
        return ["Nothing but the seed was swept, so there is no effect to look for."]
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
            said.append(f"Whether {parameter} changes {_list(open_labels)} is inconclusive.")
    return said


def difference_sentences(comparison: Comparison, table: pd.DataFrame) -> list[str]:
    """Say the differences that hold, the surest first, and what cannot be told."""
    first, second = comparison.names()
    sentences = []
    for row in conclusive(table):
        feature = FEATURES[row["feature"]]
        change, low, high = (float(row[name]) for name in ("change", "low", "high"))
        decimals = decimals_for((0.0, max(abs(low), abs(high), abs(change))))
        more = "higher" if change > 0 else "lower"
        ends = sorted((abs(low), abs(high)))
        sentences.append(
            f"{feature.label} is {more} with {second} than with {first}: by "
            f"{with_unit(signed(abs(change), decimals), feature.difference_unit)} (95% interval "
            f"{signed(ends[0], decimals)} to {signed(ends[1], decimals)}, {row['seeds']} seeds)."
        )
    untested = table[table["p_value"].isna()]
    if len(untested) == len(table):
        sentences.append(f"Nothing can be concluded: {_first_note(untested['note'])}.")
    elif not sentences:
        sentences.append(
            f"No difference in any of {len(table)} features could be told from chance."
        )
    return sentences


def _first_note(notes: Any) -> str:
    return next((str(note) for note in notes if note), "no pair has a value")


def _reasons(rows: pd.DataFrame) -> str:
    reasons = list(dict.fromkeys(str(note) for note in rows["note"] if note))
    return "; ".join(reasons[:2])


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
