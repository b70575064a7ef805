"""The effects of every parameter on every feature, with intervals: one panel per feature."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import NAMED_FEATURES
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import ACCENT, MUTED, Drawing, add_title, lab_style
from musicgen_lab.formatting import decimals_for, format_value, mid_sentence, signed, with_unit
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.effects import ALL_SAME, NO_VALUE, SAME_LEVELS
from musicgen_lab.stats.study_tables import StudyTables

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HUMPS = {"hump", "dip"}
COLUMNS = 3
PANEL_IN, ROW_IN = 2.35, 0.34
TITLE_IN = 5.2  # the least width that a title needs
DOT_PT = 6.5


def plot_effects(table: RunTable, features: Sequence[str] | None = None) -> Drawing:
    """Draw how much each swept parameter moves each feature, with 95% intervals.

    One panel per feature, in its unit, with a dot and an interval per parameter: what `StudyTables`
    states, which is the change from the parameter's lowest level to its highest, the middle of the
    range against its ends (a diamond), or the surest difference between two levels that have no
    order. Filled where it is significant after correction, hollow where it is inconclusive.
    Features that are the same in every clip are named above the panels.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.

    Raises
    ------
    InvalidRequest
        When there is no such feature, none has a mean, or no parameter but the seed is swept.
    """
    panels = EffectPanels(table, features)
    return panels.draw(panels.features, title=panels.legend)


class EffectPanels:
    """The effects of a run on each feature, drawn together or one by one.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        As for `plot_effects`, with its errors.

    Attributes
    ----------
    features : tuple of str
        Those that have a panel: all but those that are the same in every clip, if others are not.
    legend : str
        How to read the panels, and which features have none.
    """

    def __init__(self, table: RunTable, features: Sequence[str] | None = None) -> None:
        if not table.parameters:
            raise InvalidRequest(
                "there are no effects to draw: nothing but the seed was swept", field="results"
            )
        effects = StudyTables.of(table, features).effects
        if effects.empty:
            raise InvalidRequest(
                "there are no effects to draw: none of the features has a mean", field="features"
            )
        named = list(dict.fromkeys(effects["feature"]))
        same = [
            name for name, rows in effects.groupby("feature") if (rows["note"] == ALL_SAME).all()
        ]
        self.features = tuple(name for name in named if name not in same) or tuple(named)
        self.legend = (
            "Change from the lowest to the highest value, with its 95% interval. "
            f"{_other_shapes(effects)}Filled: significant after correction. Hollow: inconclusive."
        )
        if len(self.features) < len(named):
            labels = (NAMED_FEATURES[name].mean_label for name in named if name in same)
            self.legend += f" The same in every clip: {', '.join(map(mid_sentence, labels))}."
        self._effects = effects
        self._parameters = list(dict.fromkeys(effects["parameter"]))
        self._row_names = [_row_name(table, parameter) for parameter in self._parameters]

    @lab_style()
    def draw(self, features: Sequence[str], *, title: str = "") -> Drawing:
        """Draw the panels of some features, three in a row."""
        from matplotlib.figure import Figure

        columns = min(COLUMNS, len(features))
        rows = math.ceil(len(features) / columns)
        height = rows * (0.85 + ROW_IN * len(self._parameters)) + (0.8 if title else 0.1)
        width = 1.2 + columns * PANEL_IN + (columns - 1) * 0.2
        figure = Figure((max(width, TITLE_IN) if title else width, height))
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        panels[0, 0].set_ylim(len(self._parameters) - 0.4, -0.6)
        panels[0, 0].set_yticks(range(len(self._parameters)), self._row_names)
        if title:
            add_title(figure, title)
        for axes, feature in zip_longest(panels.flat, features):
            if feature is None:
                axes.set_axis_off()
            else:
                _draw_panel(axes, self._of([feature]).set_index("parameter"), feature)
        return Drawing(figure, _alt(self._of(features)))

    def _of(self, features: Sequence[str]) -> pd.DataFrame:
        """Return the effects on some features, the parameters in the order of the rows."""
        return self._effects[self._effects["feature"].isin(features)]


def _other_shapes(effects: pd.DataFrame) -> str:
    """Say what a dot is where it is no change from the lowest to the highest value."""
    shapes = set(effects["shape"])
    humps = "Diamond: the middle of the range against its ends. "
    pairs = "Values without an order: the two with the smallest p-value. "
    return (humps if shapes & HUMPS else "") + (pairs if "pair" in shapes else "")


def _row_name(table: RunTable, parameter: str) -> str:
    values = table.values(parameter)
    if isinstance(values[0], str):
        return f"{parameter}\n{len(values)} values"
    return f"{parameter}\n{' to '.join(format_value(parameter, values[end]) for end in (0, -1))}"


def _draw_panel(axes: Axes, rows: pd.DataFrame, feature: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ends = np.abs(rows[["change", "low", "high"]].to_numpy(float))
    reach = float(np.nanmax(ends, initial=0.0))
    limit = 1.12 * reach or 1.0
    dot = DOT_PT / 72 / PANEL_IN * limit  # its radius along the axis
    for y, (_, row) in enumerate(rows.iterrows()):
        change, low, high = (float(row[name]) for name in ("change", "low", "high"))
        if not math.isfinite(change):
            axes.text(
                0.5,
                y,
                _why_empty(row),
                transform=axes.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=8,
            )
            continue
        axes.plot([0, 0], [y - 0.5, y + 0.5], color=MUTED, linewidth=0.8, zorder=0)
        colour = ACCENT if row["significant"] else MUTED
        for start, end in ((low, change - dot), (change + dot, high)):
            if start < end:
                axes.plot([start, end], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        face = colour if row["significant"] else "none"
        marker = "D" if row["shape"] in HUMPS else "o"
        axes.plot(change, y, marker, markersize=DOT_PT, color=colour, markerfacecolor=face)
    axes.set_xlim(-limit, limit)
    if reach:
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True, prune="both"))
        unit = textwrap.shorten(NAMED_FEATURES[feature].difference_unit, 24, placeholder="…")
        axes.set_xlabel(f"on a scale of {unit}" if " to " in unit else unit)
    else:
        axes.set_xticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(NAMED_FEATURES[feature].mean_label)


def _why_empty(row: pd.Series[Any]) -> str:
    if row["note"] == NO_VALUE:
        return "no value"
    if row["note"] in (ALL_SAME, SAME_LEVELS):
        return "no difference at all"
    return "too few seeds" if row["note"].endswith("are needed") else "cannot be tested"


def _alt(effects: pd.DataFrame) -> str:
    parts = []
    middle = ", the middle of the range against its ends"
    for row in effects.to_dict("records"):
        feature = NAMED_FEATURES[row["feature"]]
        text = f"{row['parameter']} on {mid_sentence(feature.mean_label)}"
        if math.isfinite(row["change"]):
            decimals = decimals_for((0.0, abs(row["change"])))
            change = signed(row["change"], decimals, plus=True)
            text += f" {with_unit(change, feature.difference_unit)}"
            text += middle if row["shape"] in HUMPS else ""
        text += "" if row["significant"] else ", inconclusive"
        parts.append(text)
    return f"Effects with 95% intervals. {'; '.join(parts)}."
