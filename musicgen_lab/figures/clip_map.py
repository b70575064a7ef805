"""A map of all clips of a run by principal components of their features, coloured by a field."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import FEATURES
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import MUTED, Drawing, lab_style
from musicgen_lab.formatting import format_value
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.principal_map import map_coordinates

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOUR_MAP = "cividis"  # made for colour-blind readers; its ends differ in lightness too
MARKERS = "osD^vP*X"
TEXTS_MAX = len(MARKERS)
LOADINGS_SHOWN = 3


@lab_style()
def plot_map(
    table: RunTable, colour_by: str | None = None, features: Sequence[str] | None = None
) -> Drawing:
    """Draw all clips on a plane, with similar clips close to each other.

    Parameters
    ----------
    table : RunTable
    colour_by : str, optional
        A swept field; the first one if not given.
    features : sequence of str, optional
        All that are numbers if not given.

    Raises
    ------
    InvalidRequest
        When the field is not swept, there is no such feature, or too few clips are audible.
    """
    from matplotlib.figure import Figure

    swept = table.swept
    colour_by = colour_by or next(iter(table.parameters or swept), None)
    if colour_by not in swept:
        raise InvalidRequest(
            f"colour_by must be a swept field, got {colour_by!r}; swept are "
            f"{', '.join(swept) or 'none'}",
            field="colour_by",
            value=colour_by,
        )
    placed = map_coordinates(table, features)
    shown = placed[placed["x"].notna()]
    values = [value for value in table.values(colour_by) if value in set(shown[colour_by])]
    labels = [table.labels.value(colour_by, value) for value in values]
    figure = Figure((7.4, 5.6))
    axes = figure.subplots()
    _scatter(axes, shown, colour_by, values, labels)
    for which, label in enumerate("xy"):
        share = placed.attrs["explained"][which]
        strongest = _strongest(placed.attrs["loadings"], which)
        text = f"Component {which + 1} ({share:.0%} of the variance): {strongest}"
        (axes.set_xlabel if label == "x" else axes.set_ylabel)(text, fontsize=8.5)
    axes.set_title(f"{len(shown)} clips: the closer, the more similar their features")
    return Drawing(figure, _alt(shown, placed, colour_by))


def _scatter(
    axes: Axes, shown: pd.DataFrame, colour_by: str, values: list[Any], labels: list[str]
) -> None:
    from matplotlib import colormaps

    is_text = isinstance(values[0], str)
    dots: dict[str, Any] = {"s": 46, "linewidth": 0.6, "edgecolor": MUTED}
    if not is_text and len(values) > TEXTS_MAX:
        drawn = axes.scatter(shown["x"], shown["y"], c=shown[colour_by], cmap=COLOUR_MAP, **dots)
        bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.04, label=colour_by)
        bar.outline.set_visible(False)
        return
    shares = np.linspace(0, 1, len(values)) if len(values) > 1 else [0.2]
    for share, value, label, marker in zip(
        shares, values, labels, itertools.cycle(MARKERS), strict=False
    ):
        here = shown[shown[colour_by] == value]
        colour = colormaps[COLOUR_MAP](share)
        axes.scatter(
            here["x"],
            here["y"],
            color=colour,
            marker=marker,
            label=textwrap.fill(label, 20),
            **dots,
        )
    axes.legend(title=colour_by, loc="upper left", bbox_to_anchor=(1.02, 1))


def _strongest(loadings: dict[str, list[float]], which: int) -> str:
    ordered = sorted(loadings, key=lambda name: -abs(loadings[name][which]))[:LOADINGS_SHOWN]
    return ", ".join(
        f"{'+' if loadings[name][which] > 0 else '−'} {FEATURES[name].label}" for name in ordered
    )


def _alt(shown: pd.DataFrame, placed: pd.DataFrame, colour_by: str) -> str:
    means = shown.groupby(colour_by)[["x", "y"]].mean()
    positions = "; ".join(
        f"{colour_by} {format_value(colour_by, value)} around {x:.1f}, {y:.1f}".replace("-", "−")
        for value, x, y in means.head(12).itertuples()
    )
    explained = sum(placed.attrs["explained"])
    return (
        f"Map of {len(shown)} clips along their first two principal components, which hold "
        f"{explained:.0%} of the variance of their features. {positions}."
    )
