"""Features along every swept parameter: the seeds as dots, their mean as a line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import NAMED_FEATURES, numeric_features
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import ACCENT, INK, MUTED, Drawing, add_title, lab_style
from musicgen_lab.formatting import decimals_for, mid_sentence, signed, with_unit
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.designs import is_ordered
from musicgen_lab.stats.effects import replicates
from musicgen_lab.stats.study_tables import StudyTables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PANEL_IN = (2.8, 1.8)
NAMES_IN = 0.6  # room for names under the lowest panels, which may be slanted
LABEL_CHARACTERS_MAX = 20
UPRIGHT_CHARACTERS_MAX = 30
"""Labels under an axis with more characters than this in all are slanted."""

TICK_GAP_MIN = 0.12
"""Numbers stand at the levels of a parameter if they are this share of its range apart."""


@lab_style()
def plot_curves(
    table: RunTable,
    features: Sequence[str] | None = None,
    *,
    study: StudyTables | None = None,
) -> Drawing:
    """Draw features against every swept parameter, one row of panels for each feature.

    In a grid, a dot is the mean of one seed's clips at a value of the parameter, over the values of
    the other parameters, and the line joins the means of the dots. In a random design every clip is
    a dot, and a straight line is fitted to them (least squares): solid where the rank correlation
    over it is significant, dashed where it is inconclusive.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.
    study : StudyTables, optional
        Whose trends a random design's panels show; those of the features alone if not given.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or no parameter but the seed is swept.
    """
    from matplotlib.figure import Figure

    if not table.parameters:
        raise InvalidRequest(
            "there are no curves to draw: nothing but the seed was swept", field="results"
        )
    shown = StudyTables.of(table, features if features is None else numeric_features(features))
    study = study or shown
    frame = shown.table.frame
    rows, columns = len(shown.features), len(table.parameters)
    has_names = any(not is_ordered(frame[name]) for name in table.parameters)
    width = 0.9 + columns * PANEL_IN[0]
    height = 0.8 + rows * PANEL_IN[1] + (NAMES_IN if has_names else 0)
    figure = Figure((width, height))
    panels = figure.subplots(rows, columns, squeeze=False, sharex="col", sharey="row")
    title = (
        "One dot for each clip, and a line fitted to them: dashed where it is inconclusive."
        if study.is_random_design
        else f"One dot for each {replicates(table.replicate, 1)}"
        f"{', averaged over the other parameters' * (columns > 1)}; the line is their mean."
    )
    add_title(figure, title)
    parts = []
    for row, feature in enumerate(shown.features):
        for axes, parameter in zip(panels[row], table.parameters, strict=True):
            means = _draw_panel(axes, table, frame, parameter, feature, study.is_random_design)
            named = NAMED_FEATURES[feature]
            title_lines = [f"{named.label} ({named.unit})" if axes is panels[row, 0] else ""]
            if study.is_random_design:
                trend = _draw_trend(axes, frame, parameter, feature, study)
                title_lines.append(trend)
                parts.append(f"{mid_sentence(named.label)} by {parameter}, {trend}")
            else:
                parts.append(_words(table, parameter, feature, means))
            axes.set_title("\n".join(title_lines), fontsize=8.5)
            axes.set_xlabel(parameter)
            axes.label_outer()
    return Drawing(figure, f"{title} {'; '.join(part for part in parts if part)}.")


def _draw_panel(
    axes: Axes,
    table: RunTable,
    frame: pd.DataFrame,
    parameter: str,
    feature: str,
    is_random_design: bool,
) -> pd.Series[float]:
    """Draw one panel and return the means of the parameter's values, empty without a line."""
    values = frame[feature].astype("Float64").astype(float)
    levels = table.values(parameter)
    number = {level: index for index, level in enumerate(levels)}
    ordered = is_ordered(frame[parameter])
    x = frame[parameter].astype(float) if ordered else frame[parameter].map(number).astype(float)
    dots = values.dropna()
    if not is_random_design:
        dots = values.groupby([x.rename("x"), frame[table.replicate]]).mean().dropna()
        x = dots.index.get_level_values("x").to_series(index=dots.index)
    axes.plot(
        x.loc[dots.index], dots, "o", markersize=3.5, color=MUTED, alpha=0.7, markeredgewidth=0
    )
    means = dots.groupby(x.loc[dots.index]).mean()
    if is_random_design:
        means = means.iloc[:0]
    else:
        style = "-" if ordered else "None"
        axes.plot(means.index, means, linestyle=style, marker="_", color=ACCENT, linewidth=1.5)
    if not len(dots):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center")
    if not ordered:
        texts = [
            textwrap.shorten(
                table.labels.value(parameter, level), LABEL_CHARACTERS_MAX, placeholder="…"
            )
            for level in levels
        ]
        is_slanted = sum(map(len, texts)) > UPRIGHT_CHARACTERS_MAX
        slanted: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(levels)), texts, **(slanted if is_slanted else {}))
        axes.set_xlim(-0.5, len(levels) - 0.5)
    elif not is_random_design and _are_apart(levels):
        axes.set_xticks(levels)
    means.index = [levels[round(at)] if not ordered else at for at in means.index]
    return means


def _are_apart(levels: Sequence[float]) -> bool:
    """Return whether there is room for a number at every level."""
    gaps = np.diff(np.sort(np.array(levels, float)))
    return bool(len(gaps) and gaps.min() >= TICK_GAP_MIN * gaps.sum())


def _draw_trend(
    axes: Axes, frame: pd.DataFrame, parameter: str, feature: str, study: StudyTables
) -> str:
    """Draw the line fitted to a random design's clips, and return their rank correlation."""
    trends = study.trends
    rows = trends[(trends["parameter"] == parameter) & (trends["feature"] == feature)]
    if rows.empty or not np.isfinite(rows["rho"].iloc[0]):
        return "no trend to test"
    trend = rows.iloc[0]
    points = frame[[parameter, feature]].astype("Float64").astype(float).dropna()
    slope, start = np.polyfit(points[parameter], points[feature], 1)
    ends = np.array([points[parameter].min(), points[parameter].max()])
    axes.plot(
        ends,
        start + slope * ends,
        color=ACCENT if trend["significant"] else INK,
        linestyle="-" if trend["significant"] else (0, (4, 3)),
        linewidth=1.5 if trend["significant"] else 0.9,
    )
    rho, low, high = (signed(float(trend[name]), 2) for name in ("rho", "low", "high"))
    return f"rank correlation {rho} ({low} to {high})"


def _words(table: RunTable, parameter: str, feature: str, means: pd.Series[float]) -> str:
    if means.empty:
        return ""
    named = NAMED_FEATURES[feature]
    decimals = decimals_for((float(np.min(means)), float(np.max(means))))
    texts = [
        f"{table.labels.value(parameter, level)}: {with_unit(signed(mean, decimals), named.unit)}"
        for level, mean in means.items()
    ]
    return f"{mid_sentence(named.label)} by {parameter}, {', '.join(texts)}"
