"""A feature over a grid as a heatmap: mean, spread and count in every cell."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musicgen_lab.figures.cells import Cell, CellPage
from musicgen_lab.figures.drawing import INK, MUTED, PAPER, Drawing
from musicgen_lab.figures.facets import describe, format_value
from musicgen_lab.formatting import decimals_for, mid_sentence, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from musicgen_lab.analysis.features import Feature

COLOUR_MAP = "viridis"  # even in lightness, and told apart by colour-blind readers
NOTHING_FACE = "#d9d7de"
DARK_TEXT, LIGHT_TEXT = "#141418", "#ffffff"


def draw_heatmap(page: CellPage, feature: Feature, limits: tuple[float, float] | None) -> Drawing:
    """Draw one page of cells; see `musicgen_lab.plots.heatmap`.

    Parameters
    ----------
    page : CellPage
    feature : Feature
        Whose means the cells hold.
    limits : tuple of float or None
        The colour scale's ends, shared by all pages; None where no cell has a value.
    """
    from matplotlib.figure import Figure

    layout = _Layout.around(page, feature)
    figure = Figure(figsize=(layout.width, layout.height), dpi=120, facecolor=PAPER)
    axes = figure.add_axes(layout.grid())
    axes.set_xlim(0, len(page.column_values))
    axes.set_ylim(len(page.row_values), 0)
    size = 9.5 if layout.is_roomy else 8.0
    _label(figure, axes, page, layout, size)
    decimals = decimals_for(limits)
    for cell in page.cells:
        _draw_cell(axes, cell, page, limits, decimals, layout, size)
    if limits is not None:
        _add_colour_bar(figure, feature, limits, layout, size)
    return Drawing(figure, _alt(page, feature, decimals))


@dataclass(frozen=True)
class _Layout:
    """Where things stand on the paper, in inches."""

    title: str
    cell_width: float
    cell_height: float
    rows: int
    columns: int
    left: float
    right: float = 1.3
    bottom: float = 0.3

    @classmethod
    def around(cls, page: CellPage, feature: Feature) -> _Layout:
        columns, rows = len(page.column_values), len(page.row_values)
        roomy = columns <= 5
        cell_width = {1: 3.0, 2: 1.9}.get(columns, 1.35) if roomy else 0.88
        left = 0.3
        if page.row_field:
            heads = [_head(page.row_field, value) for value in page.row_values]
            left = 0.35 + 0.095 * max(map(len, [page.row_field, *heads]))
        width = left + columns * cell_width + cls.right
        said = f"{feature.label} ({feature.unit}): mean ± standard deviation over seeds{_n(page)}"
        lines = textwrap.wrap(said, int(width * 11.5))
        if page.fixed:
            lines += textwrap.wrap(describe(page.fixed), int(width * 11.5), max_lines=2)
        return cls(
            title="\n".join(lines),
            cell_width=cell_width,
            cell_height=0.8 if roomy else 0.68,
            rows=rows,
            columns=columns,
            left=left,
        )

    @property
    def is_roomy(self) -> bool:
        return self.cell_width > 1

    @property
    def top(self) -> float:
        return 0.85 + 0.2 * (self.title.count("\n") + 1)

    @property
    def width(self) -> float:
        return max(4.4, self.left + self.columns * self.cell_width + self.right)

    @property
    def height(self) -> float:
        return self.top + self.rows * self.cell_height + self.bottom

    def grid(self) -> tuple[float, float, float, float]:
        return (
            self.left / self.width,
            self.bottom / self.height,
            self.columns * self.cell_width / self.width,
            self.rows * self.cell_height / self.height,
        )


def _head(name: str, value: Any) -> str:
    text = format_value(name, value)
    return text if len(text) <= 14 else f"{text[:13].rstrip()}…"


def _most(page: CellPage) -> int:
    return max(cell.n for cell in page.cells)


def _n(page: CellPage) -> str:
    counts = {cell.n for cell in page.cells if cell.status == "ok"}
    return f"; n = {_most(page)}{'' if len(counts) == 1 else ' unless said'}" if counts else ""


def _label(figure: Figure, axes: Axes, page: CellPage, layout: _Layout, size: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    ink: dict[str, Any] = {"fontsize": size, "color": INK, "parse_math": False}
    figure.text(
        0.15 / layout.width,
        1 - 0.12 / layout.height,
        layout.title,
        va="top",
        linespacing=1.25,
        **(ink | {"fontsize": 10.5}),
    )
    top = 1 - (layout.top - 0.42) / layout.height
    if page.column_field:
        middle = (layout.left + layout.columns * layout.cell_width / 2) / layout.width
        figure.text(middle, top, page.column_field, ha="center", va="center", **ink)
        for j, value in enumerate(page.column_values):
            text = _head(page.column_field, value)
            axes.text(j + 0.5, -0.1, text, ha="center", va="bottom", **ink)
    if page.row_field:
        axes.text(-0.12, -0.1, page.row_field, ha="right", va="bottom", **ink)
        for i, value in enumerate(page.row_values):
            text = _head(page.row_field, value)
            axes.text(-0.12, i + 0.5, text, ha="right", va="center", **ink)


def _draw_cell(
    axes: Axes,
    cell: Cell,
    page: CellPage,
    limits: tuple[float, float] | None,
    decimals: int,
    layout: _Layout,
    size: float,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    # A little paper between the cells, the same on every side.
    gap_x, gap_y = 0.02 / layout.cell_width, 0.02 / layout.cell_height
    place = Rectangle(
        (cell.column + gap_x, cell.row + gap_y), 1 - 2 * gap_x, 1 - 2 * gap_y, linewidth=0
    )
    axes.add_patch(place)
    middle: dict[str, Any] = {"ha": "center", "parse_math": False}
    x, y = cell.column + 0.5, cell.row + 0.5
    if cell.status != "ok":
        if cell.status == "missing":
            place.set(facecolor="none", edgecolor=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        else:
            hatch = "////" if cell.status == "failed" else None
            place.set(facecolor=NOTHING_FACE, edgecolor=MUTED, hatch=hatch)
            box = {"boxstyle": "round,pad=0.3", "facecolor": "#f4f3f7", "edgecolor": MUTED}
            axes.text(
                x, y, cell.status, va="center", fontsize=size, color=DARK_TEXT, bbox=box, **middle
            )
        return
    assert limits is not None
    low, high = limits
    share = (cell.mean - low) / (high - low) if high > low else 0.5
    red, green, blue, _ = colormaps[COLOUR_MAP](share)
    place.set_facecolor((red, green, blue))
    luminance = sum(
        weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        for weight, part in ((0.2126, red), (0.7152, green), (0.0722, blue))
    )
    # WCAG: black has more contrast than white from a relative luminance of 0.179 on.
    middle["color"] = DARK_TEXT if luminance > 0.179 else LIGHT_TEXT
    lines = [] if math.isnan(cell.sd) else [f"± {cell.sd:,.{decimals}f}"]
    notes = _cell_notes(cell, page)
    if notes:
        lines.append(notes)
    lift = 0.09 * len(lines)
    axes.text(
        x,
        y - lift * 1.3,
        signed(cell.mean, decimals),
        va="center",
        fontsize=size + 1.5,
        fontweight="bold",
        **middle,
    )
    if lines:
        axes.text(
            x,
            y - lift * 1.3 + 0.17,
            "\n".join(lines),
            va="top",
            fontsize=size - 1,
            linespacing=1.15,
            **middle,
        )


def _cell_notes(cell: Cell, page: CellPage) -> str:
    """Say what sets a cell's clips apart from the others': fewer, failed, silent."""
    if cell.failed:
        return f"n {cell.n}, {cell.failed} failed"
    if cell.silent:
        return f"n {cell.n}, {cell.silent} silent"
    return f"n {cell.n}" if cell.n < _most(page) else ""


def _add_colour_bar(
    figure: Figure, feature: Feature, limits: tuple[float, float], layout: _Layout, size: float
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    height = min(layout.rows * layout.cell_height, 4.0)
    middle = layout.bottom + layout.rows * layout.cell_height / 2
    place = figure.add_axes(
        (
            (layout.left + layout.columns * layout.cell_width + 0.18) / layout.width,
            (middle - height / 2) / layout.height,
            0.13 / layout.width,
            height / layout.height,
        )
    )
    low, high = limits
    around = 0.5 if low == high else 0.0  # one value alone has the colour in the middle
    scale = ScalarMappable(Normalize(low - around, high + around), cmap=COLOUR_MAP)
    bar = figure.colorbar(scale, cax=place)
    ticks = [low] if around else MaxNLocator(4).tick_values(low, high)
    bar.set_ticks([tick for tick in ticks if low <= tick <= high])
    unit = textwrap.shorten(feature.unit, 16, placeholder="…")
    place.set_ylabel(unit, fontsize=size, color=INK)
    place.tick_params(labelsize=size - 0.5, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _alt(page: CellPage, feature: Feature, decimals: int) -> str:
    """Say the means of every cell, row by row, and what is not there."""
    parts = [
        f"Heatmap of {mid_sentence(feature.label)} in {feature.unit}, mean over seeds{_n(page)}"
    ]
    if page.fixed:
        parts.append(f"with {describe(page.fixed)}")
    parts += [
        f"{cell.label or 'the only cell'}: "
        + (signed(cell.mean, decimals) if cell.status == "ok" else cell.status)
        for cell in page.cells
    ]
    return "; ".join(parts) + "."
