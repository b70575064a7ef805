"""The section of a report on blind listening: what listeners preferred, heard and rated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import NAMED_FEATURES
from musicgen_lab.formatting import FieldLabels, mid_sentence, signed
from musicgen_lab.report.sentences import listed, named, tests_performed, with_value
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.effects import replicates
from musicgen_lab.stats.preferences import FEWEST_LISTENERS, PREFERENCE, PreferenceStudy
from musicgen_lab.stats.study_tables import ALPHA, rows_of, significant, tested
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML

WHAT = {PREFERENCE: "what is preferred", "quality": "rated quality", "fit": "rated fit"}
MANY_AT_ENDS = 0.1
"""From this share of ratings at an end of the scale on, the report says so."""
RATED = {"quality": "quality", "fit": "the fit to the prompt"}


def preferences(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Return what blind tests say of a run; nothing where nobody has listened.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The features that may go with being preferred; see
        `musicgen_lab.analysis.features.averaged_features`.

    Returns
    -------
    IPython.display.HTML
    """
    study = PreferenceStudy.of(table)
    correlations = study.features(features)
    return show(
        "report/preferences.html.j2",
        lead=_lead(study),
        significant=[_effect(study, row) for row in significant(study.effects)],
        inconclusive=[*_inconclusive(study), *_scope(study), *_ends(study)],
        method=_method(study),
        abx=[abx_sentence(row) for row in rows_of(study.abx)],
        features=[feature_sentence(row) for row in significant(correlations)],
        correlated=tested(correlations),
        listeners=[_listener(row) for row in rows_of(study.listeners)],
    )


def _lead(study: PreferenceStudy) -> str:
    """Say who answered how much; empty if nobody did."""
    if not study.given:
        return ""
    names = study.listener_names
    who = names[0] if len(names) == 1 else f"{len(names)} listeners"
    answers = f"{len(study.given)} answer{'s' * (len(study.given) > 1)}"
    return (
        f"{answers} of {who}, who did not know which clips they heard; compared "
        "clips were equally loud and equally long, in random order."
    )


def _who(study: PreferenceStudy, row: Mapping[str, Any]) -> tuple[str, bool]:
    """Return of whom a claim is, and whether that is one person."""
    if row["general"]:
        return "Listeners", False
    if row["listeners"] == 1:
        return study.liking[row["feature"]].listeners[0], True
    return f"These {row['listeners']} listeners", False


def _effect(study: PreferenceStudy, row: Mapping[str, Any]) -> str:
    who, one = _who(study, row)
    if "rho" in row:
        return _trend_sentence(row, study)
    labels = study.table.labels
    if row["feature"] == PREFERENCE:
        return preference_sentence(row, labels, who, one=one)
    return rating_sentence(row, labels, who, one=one)


def preference_sentence(
    row: Mapping[str, Any], labels: FieldLabels, who: str, *, one: bool = False
) -> str:
    """Say a significant effect on preference in a sentence, as a share of comparisons.

    Such as "Listeners prefer a lower temperature: a clip at 0.7 is preferred to one at 1.3 in 78%
    of comparisons (95% interval 61% to 89%, 240 answers of 3 listeners, 4 seeds)."
    """
    parameter, shape, prefer = row["parameter"], row["shape"], "prefers" if one else "prefer"
    first, last = (labels.value(parameter, row[end]) for end in ("from_level", "to_level"))
    up = row["change"] > 0
    better, worse = (last, first) if up else (first, last)
    peak = labels.value(parameter, row["peak"]) if shape in ("hump", "dip") else ""
    share, low, high = _shares(row)
    certainty = f"in {share} of comparisons (95% interval {low} to {high}, {_basis(row)})"
    if shape == "pair":
        with_worse, with_better = (
            with_value(parameter, row[end], labels) for end in ("from_level", "to_level")
        )
        return (
            f"What {_in_sentence(who, one=one)} {prefer} depends on {named(parameter)}: a clip "
            f"{with_better} is preferred to one {with_worse} {certainty}."
        )
    what, comparison = {
        "trend": (
            f"a {'higher' if up else 'lower'} {parameter}",
            f"a clip at {better} is preferred to one at {worse}",
        ),
        "hump": (
            f"{parameter} near {peak}",
            "a clip in the middle of the range is preferred to one at its ends",
        ),
        "dip": (
            f"{parameter} away from {peak}",
            "a clip at the ends of the range is preferred to one in its middle",
        ),
    }[shape]
    return f"{who} {prefer} {what}: {comparison} {certainty}."


def rating_sentence(
    row: Mapping[str, Any], labels: FieldLabels, who: str, *, one: bool = False
) -> str:
    """Say a significant effect on ratings in a sentence, in points of 100."""
    parameter, rate = row["parameter"], "rates" if one else "rate"
    item = RATED[row["feature"]]
    first, last = (labels.value(parameter, row[end]) for end in ("from_level", "to_level"))
    change, low, high = (float(row[name]) for name in ("change", "low", "high"))
    if change < 0 and row["shape"] in ("trend", "dip"):
        change, low, high = -change, -high, -low
    points = f"{signed(change, 1)} of 100 points"
    interval = f"(95% interval {signed(low, 1)} to {signed(high, 1)}, {_basis(row)})"
    if row["shape"] == "pair":
        with_first, with_last = (
            with_value(parameter, row[end], labels) for end in ("from_level", "to_level")
        )
        return (
            f"How {_in_sentence(who, one=one)} {rate} {item} depends on {named(parameter)}: "
            f"{points} higher {with_last} than {with_first} {interval}."
        )
    certainty = f"by {points} {interval}"
    if row["shape"] == "trend":
        higher = "higher" if row["change"] > 0 else "lower"
        return f"{who} {rate} {item} {higher} at {parameter} {last} than at {first}: {certainty}."
    side = "higher" if row["shape"] == "hump" else "lower"
    peak = labels.value(parameter, row["peak"])
    return (
        f"{who} {rate} {item} {side} for {parameter} near {peak} than at the ends of its range: "
        f"{certainty}."
    )


def _in_sentence(who: str, *, one: bool) -> str:
    """Return listeners for the middle of a sentence; one has a name."""
    return who if one else mid_sentence(who)


def _trend_sentence(row: Mapping[str, Any], study: PreferenceStudy) -> str:
    """Say in a sentence that liking rises or falls with a parameter of a random design."""
    liking = {PREFERENCE: "Preference", "quality": "Rated quality", "fit": "Rated fit"}
    verb = "rises" if row["rho"] > 0 else "falls"
    rho, low, high = (signed(float(row[name]), 2) for name in ("rho", "low", "high"))
    names = study.liking[row["feature"]].listeners
    who = names[0] if len(names) == 1 else f"{len(names)} listeners"
    return (
        f"{liking[row['feature']]} {verb} with {row['parameter']}: rank correlation {rho} (95% "
        f"interval {low} to {high}, {row['answers']} answers of {who})."
    )


def abx_sentence(row: Mapping[str, Any]) -> str:
    """Say in a sentence whether a parameter can be heard.

    Such as "A difference in temperature can be heard: X was assigned correctly in 38 of 50 trials
    (76%, 95% interval 62% to 87%; guessing gives 50%)."
    """
    count = (
        f"X was assigned correctly in {row['correct']} of {row['trials']} trials "
        f"({row['share']:.0%}, 95% interval {row['low']:.0%} to {row['high']:.0%}; guessing gives "
        "50%)"
    )
    parameter = row["parameter"]
    if row["same_clip"]:
        clips = f"clips that differ in {parameter}"
        start = (
            f"{clips[:1].upper()}{clips[1:]} can be told apart"
            if row["significant"]
            else f"Whether {clips} can be told apart is inconclusive"
        )
        return f"{start}: {count}. X was one of the two clips, so this does not say what was heard."
    if row["significant"]:
        return f"A difference in {parameter} can be heard: {count}."
    return f"Whether {parameter} can be heard is inconclusive: {count}."


def feature_sentence(row: Mapping[str, Any]) -> str:
    """Say in a sentence that a feature goes with being preferred."""
    rho, low, high = (signed(float(row[name]), 2) for name in ("rho", "low", "high"))
    feature, rises = NAMED_FEATURES[row["parameter"]], row["rho"] > 0
    what = mid_sentence(feature.label)
    what = (
        f"are {'more' if rises else 'less'} often {what}"
        if feature.kind == "yes or no"
        else f"have a {'higher' if rises else 'lower'} {what}"
    )
    return (
        f"Preferred clips {what}: rank correlation {rho} (95% interval {low} to {high}, "
        f"{row['clips']} clips)."
    )


def _shares(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return log-odds, with their interval, as shares of comparisons that the better one wins."""
    from scipy.special import expit

    numbers = [float(row[name]) for name in ("change", "low", "high")]
    if numbers[0] < 0:
        numbers = [-numbers[0], -numbers[2], -numbers[1]]
    share, low, high = (_percent(float(expit(number))) for number in numbers)
    return share, low, high


def _percent(share: float) -> str:
    return ">99%" if share > 0.995 else "<1%" if share < 0.005 else f"{share:.0%}"


def _basis(row: Mapping[str, Any]) -> str:
    who = f" of {row['listeners']} listeners" if row["listeners"] > 1 else ""
    noun = replicates(row["replicate"], row["seeds"])
    return f"{row['answers']} answers{who}, {row['seeds']} {noun}"


def _inconclusive(study: PreferenceStudy) -> Iterator[str]:
    """Say where nothing can be concluded, and why."""
    open_questions: dict[tuple[str, str], list[str]] = {}
    for row in rows_of(study.effects):
        if not row["significant"]:
            open_questions.setdefault((row["feature"], row["note"]), []).append(row["parameter"])
    for (measure, note), parameters in open_questions.items():
        question = f"Whether {listed([*map(named, parameters)], 'or')} changes {WHAT[measure]}"
        yield f"{question} cannot be tested: {note}." if note else f"{question} is inconclusive."


def _scope(study: PreferenceStudy) -> Iterator[str]:
    """Say of whom the claims are, if they are not of listeners in general."""
    effects = study.effects
    if not effects.empty and not effects["general"].all():
        yield (
            f"With fewer than {FEWEST_LISTENERS} listeners who each gave at least a quarter as "
            "many answers as the busiest, and for random designs, claims are of these listeners "
            "alone."
        )


def _ends(study: PreferenceStudy) -> Iterator[str]:
    """Say where many ratings are at an end of the scale."""
    for measure, liking in study.liking.items():
        if liking.at_ends >= MANY_AT_ENDS:
            yield (
                f"Of the ratings of {RATED[measure]}, {liking.at_ends:.0%} are at an end of the "
                "scale, where differences are lost: effects are estimated too small by about that "
                "share."
            )


def _method(study: PreferenceStudy) -> str:
    count = tested(study.effects)
    if not count:
        return ""
    replicate_note = (
        ""
        if "rho" in study.effects
        else f"; {replicates(study.table.replicate)}, and from {FEWEST_LISTENERS} on listeners, "
        "are the replicates"
    )
    return (
        f"{tests_performed(count)}. The probability that any of the effects named here is a false "
        f"positive is at most {ALPHA:.0%} (Holm's correction). Preferences are strengths of the "
        f"Bradley-Terry model, in which “no difference” is half a win of each clip{replicate_note}."
    )


def _listener(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a listener's row for the template."""
    again = [f"{row['agreed']:g} of {row['repeats']}"] if row["repeats"] else []
    if row["rated_again"]:
        again.append(f"±{row['rating_change']:.0f} points in {row['rated_again']} ratings")
    biased = row["side_p"] < ALPHA
    return {
        "name": row["listener"],
        "answers": row["answers"],
        "skipped": row["skipped"],
        "again": "; ".join(again) or "–",
        "first": f"{row['first']} of {row['decided']}" if row["decided"] else "–",
        "note": "favours one side" if biased else "",
    }
