"""A feature over a grid as a heatmap: mean, spread and count in every cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import NAMED_FEATURES
from musicgen_lab.analysis.registry import Feature, RunFeature
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import INK, MUTED, PAPER, Drawing
from musicgen_lab.figures.facets import Facet, FacetGrid, cell_grids, matching
from musicgen_lab.formatting import decimals_for, mid_sentence, signed
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.run_features import with_run_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_MAP = "viridis"  # perceptually uniform, also for colour-blind readers
PALE = 0.4
"""Opacity of a cell that the seeds' spread keeps from being told from the others."""

HEAD_CHARACTERS = 14
NOTHING_FACE = "#d9d7de"
DARK_TEXT, LIGHT_TEXT = "#141418", "#ffffff"


@dataclass(frozen=True)
class Cell:
    """A feature over the seeds of one cell.

    Attributes
    ----------
    facet : Facet
        Its position and its clips.
    mean : float
        NaN if no clip has a value.
    sd : float
        Standard deviation over seeds; NaN for fewer than two values.
    n, failed, silent : int
        Clips with a value, clips that failed, and silent ones among the finished.
    """

    facet: Facet
    mean: float
    sd: float
    n: int
    failed: int
    silent: int

    @classmethod
    def of(cls, facet: Facet, feature: str) -> Cell:
        """Summarise a feature over the clips of a facet."""
        values = [_value(record, feature) for record in facet.records if record["status"] == "ok"]
        finite = [value for value in values if math.isfinite(value)]
        n = len(finite)
        mean = sum(finite) / n if n else math.nan
        sd = math.sqrt(sum((v - mean) ** 2 for v in finite) / (n - 1)) if n > 1 else math.nan
        failed = sum(record["status"] == "failed" for record in facet.records)
        silent = sum(record["is_silent"] is True for record in facet.records)
        return cls(facet, mean, sd, n, failed, silent)

    @property
    def status(self) -> str:
        """The state of its clips: "ok", "silent", "failed" or "missing"."""
        if self.n:
            return "ok"
        if self.failed:
            return "failed"
        return "silent" if self.silent else "missing"


@dataclass(frozen=True)
class ColourScale:
    """The colours that all grids of a feature share, and which cells have them pale.

    Attributes
    ----------
    low, high : float
        The lowest and the highest mean of a cell.
    centre : float
        The mean of all cells.
    sd : float
        Standard deviation of a clip within its cell, over all cells; NaN where no cell has two.
    quantile : float
        Of Student's t, for 95% confidence over all cells together.
    """

    low: float
    high: float
    centre: float
    sd: float
    quantile: float

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> ColourScale | None:
        """Return the scale of all cells of a feature; None where no cell has a value."""
        from scipy.stats import t

        means = [cell.mean for cell in cells if cell.n]
        if not means:
            return None
        replicated = [cell for cell in cells if cell.n > 1]
        freedom = sum(cell.n - 1 for cell in replicated)
        squares = sum((cell.n - 1) * cell.sd**2 for cell in replicated)
        return cls(
            min(means),
            max(means),
            sum(means) / len(means),
            math.sqrt(squares / freedom) if freedom else math.nan,
            float(t.ppf(1 - 0.025 / len(means), freedom)) if freedom else math.nan,
        )

    def is_pale(self, cell: Cell) -> bool:
        """Whether the spread of the seeds explains how far a cell is from the mean of all."""
        return abs(cell.mean - self.centre) <= self.quantile * self.sd / math.sqrt(cell.n)


@dataclass(frozen=True)
class CellGrid:
    """The cells of a grid, row by row, and their layout."""

    facets: FacetGrid
    cells: tuple[Cell, ...]

    @property
    def most(self) -> int:
        """The largest number of values in a cell."""
        return max(cell.n for cell in self.cells)


def plot_heatmap(table: RunTable, feature: str, **fixed: Any) -> Drawing:
    """Draw a feature over the grid: mean over seeds, spread and count in every cell.

    Cells whose clips all failed are hatched; silent and missing ones are marked differently.
    Colours are pale where a cell is no further from the mean of all cells than the spread of the
    seeds explains (95% confidence over all cells together; needs two seeds in a
    cell). All grids of a run share one colour scale.

    Parameters
    ----------
    table : RunTable
    feature : str
        One of `musicgen_lab.analysis.features.NAMED_FEATURES`.
    **fixed
        As in `plot_spectrograms`, without the seed.

    Raises
    ------
    InvalidRequest
        When there is no such feature, no clip, no grid to lay out, or no grid with the values in
        `fixed`.
    """
    heatmaps = plot_heatmaps(table, feature)
    if not heatmaps:
        raise InvalidRequest(
            f"a heatmap needs a grid of clips, and {table.folder} holds none; "
            "plot_effects and plot_map draw other designs",
            field="results",
        )
    return matching(heatmaps, fixed)


def plot_heatmaps(table: RunTable, feature: str) -> list[tuple[Mapping[str, Any], Drawing]]:
    """Draw `plot_heatmap` for every combination of the fields that are neither down nor across.

    Returns
    -------
    list of (fields, Drawing)
        Empty where the clips form no grid.
    """
    if feature not in NAMED_FEATURES:
        raise InvalidRequest(
            f"unknown feature {feature!r}; the features are {', '.join(NAMED_FEATURES)}",
            field=feature,
        )
    if NAMED_FEATURES[feature].kind != "number":
        raise InvalidRequest(
            f"{feature} is not a number and has no mean; choose another feature",
            field=feature,
        )
    table = with_run_features(table, [feature])
    grids = [
        CellGrid(grid, tuple(Cell.of(facet, feature) for facet in grid.facets))
        for grid in cell_grids(table)
    ]
    scale = ColourScale.of([cell for grid in grids for cell in grid.cells])
    return [(grid.facets.fixed, _draw(grid, NAMED_FEATURES[feature], scale)) for grid in grids]


def _value(record: Mapping[str, Any], feature: str) -> float:
    value = record[feature]
    return float(value) if isinstance(value, bool | int | float) else math.nan


def _draw(grid: CellGrid, feature: Feature | RunFeature, scale: ColourScale | None) -> Drawing:
    """Draw one grid of cells on a colour scale that all grids share."""
    from matplotlib.figure import Figure

    layout = _Layout.around(grid, feature, scale)
    figure = Figure(figsize=(layout.width, layout.height), dpi=120, facecolor=PAPER)
    axes = figure.add_axes(layout.grid())
    axes.set_xlim(0, len(grid.facets.column_values))
    axes.set_ylim(len(grid.facets.row_values), 0)
    size = 9.5 if layout.is_roomy else 8.0
    _label(figure, axes, grid, layout, size)
    decimals = decimals_for(None if scale is None else (scale.low, scale.high))
    for cell in grid.cells:
        _draw_cell(axes, cell, grid, scale, decimals, layout, size)
    if scale is not None:
        _add_colour_bar(figure, feature, scale, layout, size)
    return Drawing(figure, _alt(grid, feature, decimals))


@dataclass(frozen=True)
class _Layout:
    """The layout of the figure, in inches."""

    title: str
    cell_width: float
    cell_height: float
    rows: int
    columns: int
    left: float
    head_lines: int
    right: float = 1.3
    bottom: float = 0.3

    @classmethod
    def around(
        cls, grid: CellGrid, feature: Feature | RunFeature, scale: ColourScale | None
    ) -> _Layout:
        columns, rows = len(grid.facets.column_values), len(grid.facets.row_values)
        roomy = columns <= 5
        cell_width = {1: 3.0, 2: 1.9}.get(columns, 1.35) if roomy else 0.88
        left = 0.3
        if grid.facets.row_field:
            heads = [line for label in grid.facets.row_labels for line in _head(label)]
            left = 0.35 + 0.095 * max(map(len, [grid.facets.row_field, *heads]))
        width = left + columns * cell_width + cls.right
        said = f"{feature.label} ({feature.unit}): {_what(grid)}"
        if scale is not None and any(cell.n and scale.is_pale(cell) for cell in grid.cells):
            said += "; pale where the spread of the seeds explains the difference"
        lines = textwrap.wrap(said, int(width * 11.5))
        if grid.facets.heading:
            lines += textwrap.wrap(grid.facets.heading, int(width * 11.5), max_lines=2)
        return cls(
            title="\n".join(lines),
            cell_width=cell_width,
            cell_height=0.8 if roomy else 0.68,
            rows=rows,
            columns=columns,
            left=left,
            head_lines=max((len(_head(label)) for label in grid.facets.column_labels), default=1),
        )

    @property
    def is_roomy(self) -> bool:
        return self.cell_width > 1

    @property
    def top(self) -> float:
        return 0.7 + 0.2 * (self.title.count("\n") + 1) + 0.15 * self.head_lines

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


def _head(label: str) -> list[str]:
    """Write a row's or a column's value in up to three lines."""
    return textwrap.wrap(label, HEAD_CHARACTERS, max_lines=3, placeholder=" …") or [label]


def _what(grid: CellGrid) -> str:
    """Say what a cell shows."""
    if grid.most < 2:
        return "one clip in each cell"
    counts = {cell.n for cell in grid.cells if cell.status == "ok"}
    unless = "" if len(counts) == 1 else " unless said"
    return f"mean ± standard deviation over seeds; n = {grid.most}{unless}"


def _label(figure: Figure, axes: Axes, grid: CellGrid, layout: _Layout, size: float) -> None:
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
    top = 1 - (layout.top - 0.27 - 0.15 * layout.head_lines) / layout.height
    if grid.facets.column_field:
        middle = (layout.left + layout.columns * layout.cell_width / 2) / layout.width
        figure.text(middle, top, grid.facets.column_field, ha="center", va="center", **ink)
        for j, label in enumerate(grid.facets.column_labels):
            text = "\n".join(_head(label))
            axes.text(j + 0.5, -0.1, text, ha="center", va="bottom", **ink)
    if grid.facets.row_field:
        axes.text(-0.12, -0.1, grid.facets.row_field, ha="right", va="bottom", **ink)
        for i, label in enumerate(grid.facets.row_labels):
            text = "\n".join(_head(label))
            axes.text(-0.12, i + 0.5, text, ha="right", va="center", **ink)


def _draw_cell(
    axes: Axes,
    cell: Cell,
    grid: CellGrid,
    scale: ColourScale | None,
    decimals: int,
    layout: _Layout,
    size: float,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    # A little paper between the cells, the same on every side.
    gap_x, gap_y = 0.02 / layout.cell_width, 0.02 / layout.cell_height
    place = Rectangle(
        (cell.facet.column + gap_x, cell.facet.row + gap_y),
        1 - 2 * gap_x,
        1 - 2 * gap_y,
        linewidth=0,
    )
    axes.add_patch(place)
    middle: dict[str, Any] = {"ha": "center", "parse_math": False}
    x, y = cell.facet.column + 0.5, cell.facet.row + 0.5
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
    assert scale is not None
    low, high = scale.low, scale.high
    share = (cell.mean - low) / (high - low) if high > low else 0.5
    red, green, blue, _ = colormaps[COLOUR_MAP](share)
    is_pale = scale.is_pale(cell)
    place.set_facecolor((red, green, blue, PALE if is_pale else 1.0))
    luminance = sum(
        weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
        for weight, part in ((0.2126, red), (0.7152, green), (0.0722, blue))
    )
    # WCAG: black has more contrast than white from a relative luminance of 0.179 on.
    middle["color"] = INK if is_pale else DARK_TEXT if luminance > 0.179 else LIGHT_TEXT
    lines = [] if math.isnan(cell.sd) else [f"± {cell.sd:,.{decimals}f}"]
    notes = _cell_notes(cell, grid)
    if notes:
        lines.append(notes)
    lift = 0.09 * len(lines)
    axes.text(
        x,
        y - lift * 1.3,
        signed(cell.mean, decimals),
        va="center",
        fontsize=size + 1.5,
        fontweight="normal" if is_pale else "bold",
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


def _cell_notes(cell: Cell, grid: CellGrid) -> str:
    """Return the notes on a cell: fewer clips than others, failed or silent ones."""
    if cell.failed:
        return f"n {cell.n}, {cell.failed} failed"
    if cell.silent:
        return f"n {cell.n}, {cell.silent} silent"
    return f"n {cell.n}" if cell.n < grid.most else ""


def _add_colour_bar(
    figure: Figure,
    feature: Feature | RunFeature,
    colours: ColourScale,
    layout: _Layout,
    size: float,
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
    low, high = colours.low, colours.high
    around = 0.5 if low == high else 0.0  # one value alone has the colour in the middle
    scale = ScalarMappable(Normalize(low - around, high + around), cmap=COLOUR_MAP)
    bar = figure.colorbar(scale, cax=place)
    ticks = [low] if around else MaxNLocator(4).tick_values(low, high)
    bar.set_ticks([tick for tick in ticks if low <= tick <= high])
    unit = textwrap.shorten(feature.unit, 16, placeholder="…")
    place.set_ylabel(unit, fontsize=size, color=INK)
    place.tick_params(labelsize=size - 0.5, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _alt(grid: CellGrid, feature: Feature | RunFeature, decimals: int) -> str:
    """Return the alt text: the mean of every cell, row by row, and missing cells."""
    parts = [f"Heatmap of {mid_sentence(feature.label)} in {feature.unit}, {_what(grid)}"]
    if grid.facets.heading:
        parts.append(f"with {grid.facets.heading}")
    parts += [
        f"{cell.facet.label or 'the only cell'}: "
        + (signed(cell.mean, decimals) if cell.status == "ok" else cell.status)
        for cell in grid.cells
    ]
    return "; ".join(parts) + "."
