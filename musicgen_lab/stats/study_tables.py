"""What a run shows: the effects of its parameters and their interactions, those that hold first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.facets import records_of, values_of
from musicgen_lab.report.sentences import (
    interaction_sentence,
    sentence,
    trend_sentence,
    what_cannot_be_said,
)

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
    features : str or iterable of str, optional
        One or several; the default are those of `DEFAULT_FEATURES`.

    Raises
    ------
    InvalidRequest
        When one is unknown, or none is given.
    """
    from musicgen_lab.analysis.features import FEATURES

    if features is None:
        return list(DEFAULT_FEATURES)
    chosen = list(dict.fromkeys([features] if isinstance(features, str) else features))
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
        As `answers_of`; empty where nothing but the seed is swept.

    Raises
    ------
    InvalidRequest
        As `chosen_features`.
    """
    return answers_of(results, features).effects


class Answers(NamedTuple):
    """What a grid answers, corrected together for all that was asked of it.

    Attributes
    ----------
    effects : pandas.DataFrame
        As `Results.effects`, with the parameter's lowest and highest level besides (`lowest`,
        `highest`).
    interactions : pandas.DataFrame
        As `Results.interactions` for every two parameters that are numbers, with the ends of their
        levels besides (`first_lowest` and so on). One is conclusive only where the interval of
        the difference leaves out 0 too, as that difference is what is said of it.
    """

    effects: pd.DataFrame
    interactions: pd.DataFrame


def answers_of(results: Results, features: Iterable[str] | None = None) -> Answers:
    """Ask what every parameter moves and whether that depends on another one.

    The chance of any false claim in the two tables together is at most `ALPHA`.

    Parameters
    ----------
    results : Results
    features : iterable of str, optional
        As for `chosen_features`.

    Raises
    ------
    InvalidRequest
        As `chosen_features`.
    """
    import numpy as np
    import pandas as pd

    from musicgen_lab.analysis.features import NUMBERS
    from musicgen_lab.stats.effects import holm

    names = [name for name in chosen_features(features) if name in NUMBERS]
    records = records_of(results)
    levels = {name: values_of(records, name) for name in results.parameters}
    ends = {name: (values[0], values[-1]) for name, values in levels.items()}
    effects = results.effects(names, alpha=ALPHA)
    tables = [
        results.interactions(first, second, names, alpha=ALPHA).assign(
            first_lowest=ends[first][0],
            first_highest=ends[first][1],
            second_lowest=ends[second][0],
            second_highest=ends[second][1],
        )
        for first, second in _crossed(results)
    ]
    interactions = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if not effects.empty:
        lowest, highest = ({name: pair[end] for name, pair in ends.items()} for end in (0, 1))
        effects = effects.assign(
            lowest=effects["parameter"].map(lowest).astype(object),
            highest=effects["parameter"].map(highest).astype(object),
        )
    if not interactions.empty:
        asked = np.concatenate([effects["p_value"], interactions["p_value"]])
        adjusted, crossed = np.split(holm(asked), [len(effects)])
        effects = effects.assign(p_adjusted=adjusted, conclusive=adjusted < ALPHA)
        seen = (interactions["low"] > 0) | (interactions["high"] < 0)
        interactions = interactions.assign(p_adjusted=crossed, conclusive=(crossed < ALPHA) & seen)
    return Answers(effects, interactions)


def _crossed(results: Results) -> Iterator[tuple[str, str]]:
    """Yield every two parameters with order of which each combination was asked for.

    The one raised comes first, the one at whose ends it is looked at second; cfg_coef and
    temperature come before the others.
    """
    from musicgen_lab.stats.paired import is_ordered

    frame = results.frame
    ordered = [name for name in reversed(results.parameters) if is_ordered(frame[name])]
    for first, second in itertools.combinations(ordered, 2):
        asked = len(frame[[first, second]].drop_duplicates())
        if asked == frame[first].nunique() * frame[second].nunique():
            yield first, second


class StandsOut(NamedTuple):
    """What a run shows, in sentences.

    Attributes
    ----------
    held : list of str
        Effects and interactions that hold after correction, the surest first.
    remains_open : list of str
        What cannot be told, and why.
    questions : int
        How many were asked, and corrected for.
    about_interactions : int
        How many of them ask whether the effect of one parameter depends on another.
    """

    held: list[str]
    remains_open: list[str]
    questions: int
    about_interactions: int = 0


def what_stands_out(results: Results, features: Iterable[str] | None = None) -> StandsOut:
    """Say which parameters move which features, and of which it cannot be told.

    Grids are asked for main effects and interactions; a random design, in which no two clips
    differ in one parameter alone, for trends.

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
        return StandsOut(held, what_cannot_be_said(table, names), _tested(table))
    effects, interactions = answers_of(results, names)
    claims = [(effect["p_adjusted"], sentence(effect)) for effect in strongest(effects)]
    claims += [
        (interaction["p_adjusted"], interaction_sentence(interaction))
        for interaction in strongest(interactions)
    ]
    held = [said for _, said in sorted(claims, key=lambda claim: claim[0])]
    crossed = _tested(interactions)
    return StandsOut(held, what_cannot_be_said(effects, names), _tested(effects) + crossed, crossed)


def _tested(table: pd.DataFrame) -> int:
    return 0 if table.empty else int(table["p_value"].notna().sum())


def strongest(effects: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table of effects or interactions that hold, the surest first."""
    if effects.empty:
        return []
    held = effects[effects["conclusive"]].sort_values("p_adjusted", kind="stable")
    return [{str(name): value for name, value in row.items()} for row in held.to_dict("records")]
