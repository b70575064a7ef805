"""The findings of a run in sentences: effects, interactions, trends, and what is inconclusive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from musicgen_lab.analysis.features import NAMED_FEATURES
from musicgen_lab.fields import field_type
from musicgen_lab.formatting import (
    FieldLabels,
    decimals_within,
    format_value,
    mid_sentence,
    signed,
    with_unit,
)
from musicgen_lab.stats.comparison import Comparison
from musicgen_lab.stats.effects import ALL_SAME, NO_VALUE, SAME_LEVELS, replicates
from musicgen_lab.stats.study_tables import StudyTables, significant, tested

if TYPE_CHECKING:
    import pandas as pd

    from musicgen_lab.runs.run_table import RunTable


TEXTS = ("prompt", "negative_prompt", "prompt_b")
MORE_SEEDS = (
    "To see what the parameters change, run the sweep again with more seeds, such as --seed 0:6. "
    "The clips made so far are kept."
)
NO_MEAN = "None of the chosen features has a mean that could be compared."


class Findings(NamedTuple):
    """What a run shows, in sentences.

    Attributes
    ----------
    significant : list of str
        Effects and interactions that are significant after correction, by ascending p-value.
    inconclusive : list of str
        Where nothing can be concluded, and why.
    questions : int
        How many were tested, and corrected for.
    about_interactions : int
        How many of them ask whether the effect of one parameter depends on another.
    features : int
        How many features they are about.
    """

    significant: list[str]
    inconclusive: list[str]
    questions: int
    about_interactions: int = 0
    features: int = 0


def find(study: StudyTables) -> Findings:
    """Say which parameters move which features, and where that is inconclusive.

    Grids are tested for main effects and interactions; a random design, in which no two clips
    differ in one parameter alone, for trends.
    """
    if not study.features:
        return Findings([], [NO_MEAN], 0)
    table = study.trends if study.is_random_design else study.effects
    labels = study.table.labels
    crossed = study.interactions
    claims = [
        (
            row["p_adjusted"],
            trend_sentence(row) if study.is_random_design else effect_sentence(row, labels),
        )
        for row in significant(table)
    ]
    claims += [(row["p_adjusted"], interaction_sentence(row)) for row in significant(crossed)]
    return Findings(
        [text for _, text in sorted(claims, key=lambda claim: claim[0])],
        inconclusive_sentences(table),
        tested(table) + tested(crossed),
        tested(crossed),
        table[table["p_value"].notna()]["feature"].nunique() if len(table) else 0,
    )


def effect_sentence(effect: Mapping[str, Any], labels: FieldLabels) -> str:
    """Say a significant effect in a sentence, with its interval; prompts are named by their labels.

    Such as "Onset rate rises with temperature: by 1.20 per second from 0.7 to 1.3 (95%
    interval 0.80 to 1.60, 4 seeds)."
    """
    label, parameter = NAMED_FEATURES[effect["feature"]].mean_label, effect["parameter"]
    much, interval = _size(effect)
    certainty = f"({interval}, {effect['seeds']} {replicates(effect['replicate'])})"
    first, last = (labels.value(parameter, effect[end]) for end in ("from_level", "to_level"))
    if effect["shape"] == "pair":
        low, high = (
            with_value(parameter, effect[end], labels) for end in ("from_level", "to_level")
        )
        more = f"it is {much} higher {high} than {low}"
        return f"{label} depends on {named(parameter)}: {more} {certainty}."
    if effect["shape"] == "trend":
        verb = "rises" if effect["change"] > 0 else "falls"
        return f"{label} {verb} with {parameter}: by {much} from {first} to {last} {certainty}."
    extreme, side = ("highest", "above") if effect["shape"] == "hump" else ("lowest", "below")
    peak = labels.value(parameter, effect["peak"])
    return (
        f"{label} changes with {parameter} and is {extreme} near {peak}: the middle of the range "
        f"lies {much} {side} its ends {certainty}."
    )


def named(parameter: str) -> str:
    """Return a parameter's name for a sentence: with an article if it is a word."""
    return f"the {parameter}" if parameter in ("prompt", "model") else parameter


def with_value(parameter: str, level: Any, labels: FieldLabels) -> str:
    """Say that a clip has a value of a parameter, such as "with “fast drums”"."""
    if field_type(parameter) is bool:
        return f"with {parameter}" if level else f"without {parameter}"
    text = labels.value(parameter, level)
    return f"with “{text}”" if level and parameter in TEXTS else f"with {text}"


def _size(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return how large a change is, without its sign, and its interval."""
    change, low, high = (float(row[name]) for name in ("change", "low", "high"))
    if change < 0:
        change, low, high = -change, -high, -low
    decimals = decimals_within(low, high)
    much = with_unit(signed(change, decimals), NAMED_FEATURES[row["feature"]].difference_unit)
    return much, f"95% interval {signed(low, decimals)} to {signed(high, decimals)}"


def trend_sentence(trend: Mapping[str, Any]) -> str:
    """Say a significant trend in a sentence, with the interval of its rank correlation."""
    rho, low, high = (signed(float(trend[name]), 2) for name in ("rho", "low", "high"))
    verb = "rises" if trend["rho"] > 0 else "falls"
    label = NAMED_FEATURES[trend["feature"]].mean_label
    return (
        f"{label} {verb} with {trend['parameter']}: rank correlation "
        f"{rho} (95% interval {low} to {high}, {trend['clips']} clips)."
    )


def interaction_sentence(interaction: Mapping[str, Any]) -> str:
    """Say in a sentence that what one parameter does depends on another, with the interval.

    Such as "The effect of cfg_coef on brightness depends on temperature: from 1 to 5 it is
    +300 Hz at temperature 0.7 and −50 Hz at 1.3 (difference −350 Hz, 95% interval −500 to −200,
    6 seeds)."
    """
    feature = NAMED_FEATURES[interaction["feature"]]
    first, second = interaction["first"], interaction["second"]
    numbers = [
        float(interaction[name]) for name in ("at_lowest", "at_highest", "change", "low", "high")
    ]
    decimals = decimals_within(*numbers[3:])
    # Rounded first, and 0 added, so that no effect is minus zero.
    texts = [signed(round(number, decimals) + 0.0, decimals, plus=True) for number in numbers]
    at_lowest, at_highest, change = (with_unit(text, feature.difference_unit) for text in texts[:3])
    start, end, lowest, highest = (
        format_value(interaction[which], interaction[f"{which}_{level}"])
        for which in ("first", "second")
        for level in ("lowest", "highest")
    )
    return (
        f"The effect of {first} on {mid_sentence(feature.mean_label)} depends on {second}: from "
        f"{start} to {end} it is {at_lowest} at {second} {lowest} and {at_highest} at {highest} "
        f"(difference {change}, 95% interval {texts[3]} to {texts[4]}, {interaction['seeds']} "
        f"{replicates(interaction['replicate'])})."
    )


def source_sentence(table: RunTable) -> str:
    """Say what clips that continue a source are evidence of; empty where there is none.

    Such as "Clips that continue the same source count once: 4 sources are the replicates."
    """
    sources = [source for source in table.values("begin_with") if source]
    if not sources:
        return ""
    if len(sources) == 1:
        name = table.labels.value("begin_with", sources[0])
        return f"The clips continue one source, {name}: what is found holds for it alone."
    if table.replicate == "begin_with":
        return (
            f"Clips that continue the same source count once: the {len(sources)} sources are the "
            "replicates."
        )
    return (
        f"The clips continue {len(sources)} sources and are compared within each: what is found "
        "holds for these."
    )


def inconclusive_sentences(table: pd.DataFrame) -> list[str]:
    """Say in sentences where nothing can be concluded, and why.

    Parameters
    ----------
    table : pandas.DataFrame
        Effects or trends.
    """
    if table.empty:
        return ["No parameter was swept, so there is no effect to look for."]
    untested = table[table["p_value"].isna()]
    sentences = []
    too_few = untested[untested["note"].str.endswith("are needed")]
    if len(too_few) and len(untested) == len(table):
        note = str(too_few["note"].iloc[0])
        verb = "is" if note.startswith("1 ") else "are"
        sentences.append(f"Nothing can be concluded: there {verb} {note}.")
        if "seed" in note:
            sentences.append(MORE_SEEDS)
        return sentences
    for _, rows in table[table["p_value"].notna()].groupby("parameter", sort=False):
        name = named(rows["parameter"].iloc[0])
        labels = _labels(rows[~rows["significant"]]["feature"])
        if len(labels) == len(rows) > 1:
            start = name.replace("the ", "The ")
            sentences.append(
                f"{start} has no significant effect on any of the {len(rows)} features."
            )
        elif labels:
            sentences.append(f"Whether {name} changes {listed(labels, 'or')} is inconclusive.")
    other = untested[~untested["note"].isin([NO_VALUE, ALL_SAME])]
    for _, rows in other.groupby(["parameter", "note"], sort=False):
        parameter, note = rows[["parameter", "note"]].iloc[0]
        names = listed(_labels(rows["feature"]), "or")
        sentences.append(f"Whether {named(parameter)} changes {names} cannot be tested: {note}.")
    for note, verb, rest in (
        (NO_VALUE, "has", "no value in any clip: they may be too short, or silent"),
        (ALL_SAME, "is", "the same in all clips"),
    ):
        labels = _labels(untested[untested["note"] == note]["feature"])
        if labels:
            verb = verb if len(labels) == 1 else {"has": "have", "is": "are"}[verb]
            sentences.append(f"{_capital(listed(labels, 'and'))} {verb} {rest}.")
    return sentences


def difference_sentences(comparison: Comparison, table: pd.DataFrame) -> list[str]:
    """Return the significant differences between two runs, then inconclusive ones."""
    if table.empty:
        return [NO_MEAN]
    first, second = comparison.names()
    sentences = []
    for row in significant(table):
        more = "higher" if row["change"] > 0 else "lower"
        much, interval = _size(row)
        label = NAMED_FEATURES[row["feature"]].mean_label
        sentences.append(
            f"{label} differs: it is {much} {more} with {second} than with {first} ({interval}, "
            f"{row['seeds']} {replicates(row['replicate'])})."
        )
    untested = table[table["p_value"].isna()]
    if len(untested) == len(table):
        if untested["note"].isin([ALL_SAME, SAME_LEVELS]).all():
            return ["The features are the same in both runs, clip by clip."]
        sentences.append(f"Nothing can be concluded: {untested['note'].iloc[0]}.")
    elif not sentences:
        sentences.append(f"None of the {len(table)} features differs significantly.")
    return sentences


def _labels(features: Iterable[str]) -> list[str]:
    return [mid_sentence(NAMED_FEATURES[name].mean_label) for name in dict.fromkeys(features)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def tests_performed(count: int) -> str:
    """Say how many tests were performed, as the start of a sentence."""
    return "1 test was performed" if count == 1 else f"{count} tests were performed"


def listed(words: Sequence[str], last: str) -> str:
    """Return words with commas, and with a conjunction before the last one; "" of none."""
    if not words:
        return ""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
