"""A feature over a grid as a heatmap: mean, spread and count in every cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import NAMED_FEATURES, chosen_features
from musicgen_lab.analysis.registry import Feature, RunFeature
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import INK, MUTED, NOTHING, Drawing, add_title, lab_style
from musicgen_lab.figures.facets import Facet, FacetGrid, cell_grids, matching
from musicgen_lab.formatting import decimals_for, mid_sentence, signed
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.effects import replicates
from musicgen_lab.stats.run_features import with_run_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_MAP = "viridis"  # perceptually uniform, also for colour-blind readers
PALE = 0.4
"""Opacity of a cell that the seeds' spread keeps from being told from the others."""

LIGHT_FROM = 0.434
"""Share of the colour map from which on black has more contrast than white (WCAG)."""

HEAD_CHARACTERS = 14
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

    def share(self, mean: float) -> float:
        """Return where a mean is on the scale, from 0 to 1; one mean alone is in the middle."""
        return (mean - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def is_pale(self, cell: Cell) -> bool:
        """Whether the spread of the seeds explains how far a cell is from the mean of all."""
        return abs(cell.mean - self.centre) <= self.quantile * self.sd / math.sqrt(cell.n)


@dataclass(frozen=True)
class CellGrid:
    """The cells of a grid, row by row, their layout, and what repeats a cell, such as "seeds"."""

    facets: FacetGrid
    cells: tuple[Cell, ...]
    repeats: str

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
    heatmaps = Heatmaps(table, feature)
    if not heatmaps.grids:
        raise InvalidRequest(
            f"a heatmap needs a grid of clips, and {table.folder} holds none; "
            "plot_effects and plot_map draw other designs",
            field="results",
        )
    return heatmaps.draw(matching([(grid.facets.fixed, grid) for grid in heatmaps.grids], fixed))


class Heatmaps:
    """A feature over all grids of a run, on one scale; each is drawn when asked for.

    Parameters
    ----------
    table : RunTable
    feature : str
        As for `plot_heatmap`, with its errors.

    Attributes
    ----------
    grids : tuple of CellGrid
        One for every combination of the fields that are neither down nor across; none where the
        clips form no grid.
    """

    def __init__(self, table: RunTable, feature: str) -> None:
        (feature,) = chosen_features([feature])
        if NAMED_FEATURES[feature].kind != "number":
            raise InvalidRequest(
                f"{feature} is not a number and has no mean; choose another feature",
                field=feature,
            )
        table = with_run_features(table, [feature])
        self.grids = tuple(
            CellGrid(
                grid,
                tuple(Cell.of(facet, feature) for facet in grid.facets),
                replicates(table.replicate),
            )
            for grid in cell_grids(table)
        )
        self._feature = NAMED_FEATURES[feature]
        self._scale = ColourScale.of([cell for grid in self.grids for cell in grid.cells])

    @lab_style()
    def draw(self, grid: CellGrid) -> Drawing:
        """Draw one of the grids."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure

        feature, scale = self._feature, self._scale
        rows, columns = grid.facets.rows, grid.facets.columns
        cell_width = {1: 2.4, 2: 1.3}.get(columns, 0.88)
        figure = Figure((columns * cell_width + 1.3, rows * 0.7 + 1.5))
        axes = figure.subplots()
        _label(axes, grid.facets)
        limits = None if scale is None else (scale.low, scale.high)
        decimals = decimals_for(limits)
        title = f"{feature.label} ({feature.unit})\n{_what(grid)}"
        if scale is not None:
            around = 0.5 if scale.low == scale.high else 0.0
            colours = ScalarMappable(
                Normalize(scale.low - around, scale.high + around), cmap=COLOUR_MAP
            )
            bar = figure.colorbar(colours, ax=axes, aspect=15, fraction=0.1, pad=0.02)
            bar.outline.set_visible(False)  # type: ignore[operator]
            if around:
                bar.set_ticks([scale.low], labels=[signed(scale.low, decimals)])
            if any(cell.n and scale.is_pale(cell) for cell in grid.cells):
                title += f"; pale: explained by the spread of the {grid.repeats}"
        for cell in grid.cells:
            if scale is not None and cell.status == "ok":
                _draw_cell(axes, cell, _cell_lines(cell, grid, decimals), scale)
            else:
                _draw_empty_cell(axes, cell)
        add_title(figure, "\n".join(filter(None, [title, grid.facets.heading])))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # with a colour bar, each layout would differ a little
        return Drawing(figure, _alt(grid, feature, decimals))


def _value(record: Mapping[str, Any], feature: str) -> float:
    value = record[feature]
    return float(value) if isinstance(value, bool | int | float) else math.nan


def _what(grid: CellGrid) -> str:
    """Say what a cell shows."""
    if grid.most < 2:
        return "One clip in each cell"
    counts = {cell.n for cell in grid.cells if cell.status == "ok"}
    unless = "" if len(counts) == 1 else " unless said"
    return f"Mean ± standard deviation over {grid.most} {grid.repeats}{unless}"


def _label(axes: Axes, facets: FacetGrid) -> None:
    """Label the rows and the columns, at the left and at the top."""
    axes.set_xlim(0, facets.columns)
    axes.set_ylim(facets.rows, 0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.set_xlabel(facets.column_field or "", labelpad=6)
    axes.set_ylabel(facets.row_field or "")
    axes.set_xticks([j + 0.5 for j in range(facets.columns)], _heads(facets.column_labels))
    axes.set_yticks([i + 0.5 for i in range(facets.rows)], _heads(facets.row_labels))


def _heads(labels: Sequence[str]) -> list[str]:
    """Write values of a row or a column in up to three lines."""
    return [
        "\n".join(textwrap.wrap(label, HEAD_CHARACTERS, max_lines=3, placeholder=" …"))
        for label in labels
    ]


def _add_box(axes: Axes, cell: Cell, **look: Any) -> None:
    """Draw a cell's box, with a little paper around it."""
    from matplotlib.patches import Rectangle

    corner = (cell.facet.column + 0.015, cell.facet.row + 0.025)
    axes.add_patch(Rectangle(corner, 0.97, 0.95, **{"linewidth": 0} | look))


def _draw_empty_cell(axes: Axes, cell: Cell) -> None:
    if cell.status == "missing":
        dotted = {"linewidth": 0.8, "linestyle": (0, (2, 3))}
        _add_box(axes, cell, facecolor="none", edgecolor=MUTED, **dotted)
        return
    hatch = "////" if cell.status == "failed" else None
    _add_box(axes, cell, facecolor=NOTHING, edgecolor=MUTED, hatch=hatch)
    axes.text(
        cell.facet.column + 0.5,
        cell.facet.row + 0.5,
        cell.status,
        ha="center",
        va="center",
        fontsize=8.5,
        color=DARK_TEXT,
        bbox={"boxstyle": "round,pad=0.3", "facecolor": "#f4f3f7", "edgecolor": MUTED},
    )


def _draw_cell(axes: Axes, cell: Cell, lines: Sequence[str], scale: ColourScale) -> None:
    """Draw a cell's mean in bold on its colour, and other lines below it."""
    from matplotlib import colormaps

    share, is_pale = scale.share(cell.mean), scale.is_pale(cell)
    _add_box(axes, cell, facecolor=colormaps[COLOUR_MAP](share, alpha=PALE if is_pale else 1.0))
    text: dict[str, Any] = {
        "xy": (cell.facet.column + 0.5, cell.facet.row + 0.5),
        "textcoords": "offset points",
        "ha": "center",
        "color": INK if is_pale else DARK_TEXT if share >= LIGHT_FROM else LIGHT_TEXT,
    }
    mean, *below = lines
    weight = "normal" if is_pale else "bold"
    lift_pt = 5.0 * len(below)
    axes.annotate(mean, xytext=(0, lift_pt), va="center", fontsize=10, fontweight=weight, **text)
    axes.annotate("\n".join(below), xytext=(0, lift_pt - 7), va="top", fontsize=7.5, **text)


def _cell_lines(cell: Cell, grid: CellGrid, decimals: int) -> list[str]:
    """Return what is written in a cell: mean, spread, and how many clips are lacking and why."""
    lines = [signed(cell.mean, decimals)]
    if not math.isnan(cell.sd):
        lines.append(f"± {cell.sd:,.{decimals}f}")
    if cell.failed:
        lines.append(f"n {cell.n}, {cell.failed} failed")
    elif cell.silent:
        lines.append(f"n {cell.n}, {cell.silent} silent")
    elif cell.n < grid.most:
        lines.append(f"n {cell.n}")
    return lines


def _alt(grid: CellGrid, feature: Feature | RunFeature, decimals: int) -> str:
    """Return the alt text: the mean of every cell, row by row, and missing cells."""
    label, what = mid_sentence(feature.label), mid_sentence(_what(grid))
    parts = [f"Heatmap of {label} in {feature.unit}, {what}"]
    if grid.facets.heading:
        parts.append(f"with {grid.facets.heading}")
    parts += [
        f"{cell.facet.label or 'the only cell'}: "
        + (signed(cell.mean, decimals) if cell.status == "ok" else cell.status)
        for cell in grid.cells
    ]
    return "; ".join(parts) + "."
