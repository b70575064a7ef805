"""The spectrograms of a run as a grid: labelled axes, one colour scale, alt text."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import hz_to_mel
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import MUTED, NOTHING, Drawing, lab_style
from musicgen_lab.figures.facets import Facet, FacetGrid, clip_grids, matching
from musicgen_lab.figures.mel_pictures import COLOUR_MAP, LEVEL_RANGE_DB, MelPictures, mark_seams
from musicgen_lab.formatting import describe
from musicgen_lab.runs.run_table import RunTable, distinct_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
ROW_HEAD_IN = 1.15  # room for a row's field and value, beside it


def plot_spectrograms(
    table: RunTable, *, level_range_db: float = LEVEL_RANGE_DB, **fixed: Any
) -> Drawing:
    """Draw the mel spectrograms of a run's clips as a grid on one colour scale.

    Temperature goes down and cfg_coef across where they are swept; otherwise the next swept fields
    do, see `figures.facets.clip_grids`. Failed clips are hatched, silent ones are marked, and the
    facets of missing ones are blank. Dotted lines are seams, where the windows of a clip of over
    30 s join. All share their axes: time in seconds, frequency in kHz on the mel scale, level in dB
    re full scale.

    Parameters
    ----------
    table : RunTable
    level_range_db : float > 0
        The range of the colour scale, in dB.
    **fixed
        Values for swept fields that are neither down nor across, such as `seed=1`; the first value
        of those not given. The title says what is shown.

    Returns
    -------
    Drawing
        Save it with `drawing.save("grid.svg")`.

    Raises
    ------
    InvalidRequest
        When the run has no clips yet, or none with the values in `fixed`.
    """
    grids = clip_grids(table)
    if not grids:
        raise InvalidRequest(
            f"there are no clips in {table.folder} to draw; run the sweep first", field="results"
        )
    grid = matching([(grid.fixed, grid) for grid in grids], fixed)
    return draw_grid(grid, MelPictures(table, level_range_db=level_range_db))


@lab_style()
def draw_grid(grid: FacetGrid, pictures: MelPictures) -> Drawing:
    """Draw one grid of spectrograms; see `plot_spectrograms`.

    Parameters
    ----------
    grid : FacetGrid
    pictures : MelPictures
        The run's spectrograms on one scale.
    """
    from matplotlib.figure import Figure

    layout = _Layout.around(grid)
    figure = Figure((layout.width, layout.height))
    figure.set_layout_engine("none")
    axes = figure.subplots(grid.rows, grid.columns, squeeze=False, gridspec_kw=layout.gridspec())
    size = 8.5 if grid.columns <= 4 else 7.5
    for facet in grid.facets:
        _draw_facet(axes[facet.row, facet.column], facet, pictures, size, small=grid.columns > 4)
    for place in axes.ravel()[len(grid.facets) :]:
        place.set_axis_off()
    _label_axes(axes, grid, pictures, size)
    centre_x = (layout.left + layout.panels_width / 2) / layout.width
    centre_y = (layout.bottom + layout.panels_height / 2) / layout.height
    label: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10}
    figure.text(centre_x, 0.22 / layout.height, "Time (s)", **label)
    figure.text(0.2 / layout.width, centre_y, "Frequency (kHz), mel scale", rotation=90, **label)
    figure.text(
        centre_x,
        1 - 0.14 / layout.height,
        layout.title,
        ha="center",
        va="top",
        fontsize=12,
        linespacing=1.3,
    )
    _add_colour_bar(figure, layout, pictures, size)
    return Drawing(figure, _alt(grid))


def _alt(grid: FacetGrid) -> str:
    """Return the alt text of a grid."""
    made = [facet for facet in grid.facets if facet.status in ("ok", "silent")]
    parts = [f"{len(made)} mel spectrograms" if len(made) != 1 else "A mel spectrogram"]
    for name, labels, where in (
        (grid.row_field, grid.row_labels, "from top to bottom"),
        (grid.column_field, grid.column_labels, "from left to right"),
    ):
        if name is not None:
            parts.append(f"{name} {', '.join(labels)} {where}")
    if grid.is_list and grid.facets[0].label:
        parts.append("; ".join(facet.label for facet in grid.facets))
    if grid.heading:
        parts.append(f"all with {grid.heading}")
    for status in ("failed", "silent", "missing"):
        there = [facet.label for facet in grid.facets if facet.status == status]
        if there:
            parts.append(f"{status}: {'; '.join(there) or 'the only clip'}")
    return ". ".join(parts) + "."


def _draw_facet(
    axes: Axes, facet: Facet, pictures: MelPictures, size: float, *, small: bool
) -> None:
    low_db, high_db = pictures.level_limits_db
    axes.set_xlim(0, pictures.duration_s)
    axes.set_ylim(*pictures.mel_limits)
    status = facet.status
    axes.spines[:].set_visible(True)
    if status == "missing":
        axes.spines[:].set_linestyle((0, (2, 3)))
        axes.patch.set_alpha(0)
        return
    record = facet.record
    assert record is not None
    if status == "failed":
        axes.set_facecolor(NOTHING)
        axes.patch.set(hatch="////", edgecolor=MUTED, linewidth=0)
        error = str(record["error"]).split(":")[0]
        _note(axes, "failed" if small else f"failed\n{textwrap.shorten(error, 28)}", size)
        return
    mel = pictures.by_key.get(record["key"])
    if mel is not None:
        axes.imshow(mel.level_db, cmap=COLOUR_MAP, vmin=low_db, vmax=high_db, extent=mel.extent)
        axes.set_xlim(0, pictures.duration_s)
        mark_seams(axes, record)
    axes.set_facecolor("none")
    if status == "silent":
        _note(axes, "silent", size)


def _note(axes: Axes, text: str, size: float) -> None:
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=size,
        color="#1d1d21",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "#f4f3f7", "edgecolor": MUTED},
    )


def _label_axes(axes: Any, grid: FacetGrid, pictures: MelPictures, size: float) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = [hz for hz in _TICKS_HZ if hz_to_mel(np.array(hz)) < pictures.mel_limits[1] + 1]
    if grid.rows > 3:
        ticks = [hz for hz in ticks if hz in (500, 2000, 8000, 32000)]
    for facet in grid.facets:
        place = axes[facet.row, facet.column]
        is_lowest = grid.columns * (facet.row + 1) + facet.column >= len(grid.facets)
        place.tick_params(
            labelsize=size,
            labelbottom=is_lowest,
            labelleft=facet.column == 0,
        )
        place.set_yticks(hz_to_mel(np.array(ticks)), [f"{hz / 1000:g}" for hz in ticks])
        place.set_ylim(*pictures.mel_limits)
        # The last number would touch the next facet's first.
        prune = "upper" if facet.column < grid.columns - 1 else None
        nbins = 5 if grid.columns <= 4 else 3
        place.xaxis.set_major_locator(MaxNLocator(nbins, steps=[1, 2, 5, 10], prune=prune))
        if grid.is_list and facet.label:
            place.set_title("\n".join(_label_lines(facet.label)), fontsize=size, loc="center")
    for column, label in enumerate(grid.column_labels):
        text = _head(grid.column_field, label, column == 0 or grid.columns <= 4)
        axes[0, column].set_title(text, fontsize=size + 1, loc="center")
    for row, label in enumerate(grid.row_labels):
        axes[row, -1].annotate(
            _head(grid.row_field, label, row == 0 or grid.rows <= 4),
            xy=(1, 0.5),
            xytext=(7, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=size + 1,
        )


def _add_colour_bar(figure: Figure, layout: _Layout, pictures: MelPictures, size: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height = min(layout.panels_height, 4.0)
    place = figure.add_axes(
        (
            1 - 0.95 / layout.width,
            (layout.bottom + (layout.panels_height - height) / 2) / layout.height,
            0.14 / layout.width,
            height / layout.height,
        )
    )
    scale = ScalarMappable(Normalize(*pictures.level_limits_db), cmap=COLOUR_MAP)
    bar = figure.colorbar(scale, cax=place, extend="min", extendfrac=0.03)
    bar.set_label("Level of a mel band (dB re full scale)")
    place.tick_params(labelsize=size)
    bar.outline.set_visible(False)  # type: ignore[operator]


@dataclass(frozen=True)
class _Layout:
    """The layout of the facets, in inches; constrained layout takes seconds for 9 x 9.

    Attributes
    ----------
    title : str
        In its lines.
    panels_width, panels_height : float
        Of all panels together, in inches.
    gap_x, gap_y : float
        Between facets, as shares of a facet's width and height.
    left, right, top, bottom : float
        Margins in inches.
    """

    title: str
    panels_width: float
    panels_height: float
    gap_x: float
    gap_y: float
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def around(cls, grid: FacetGrid) -> _Layout:
        """Compute the layout of a grid's facets and the labels around them."""
        panel_width = {1: 6.0, 2: 3.6, 3: 2.8, 4: 2.4}.get(grid.columns, 1.5)
        panel_height = {1: 3.4, 2: 2.3, 3: 1.9}.get(grid.rows, 1.25 if grid.columns > 4 else 1.6)
        text_lines = max((len(_label_lines(facet.label)) for facet in grid.facets), default=0)
        gap_x = 0.15
        gap_y = 0.16 + (0.16 * text_lines + 0.2 if grid.is_list else 0.0)
        heads = (
            max(_head(grid.column_field, v, True).count("\n") + 1 for v in grid.column_labels)
            if grid.column_labels
            else text_lines
        )
        title = _title(grid, grid.columns * panel_width)
        title_lines = title.count("\n") + 1 if title else 0
        return cls(
            title=title,
            panels_width=grid.columns * panel_width + (grid.columns - 1) * gap_x,
            panels_height=grid.rows * panel_height + (grid.rows - 1) * gap_y,
            gap_x=gap_x / panel_width,
            gap_y=gap_y / panel_height,
            left=0.75,
            right=1.2 + (ROW_HEAD_IN if grid.row_field else 0.0),
            top=0.3 + 0.235 * title_lines + 0.17 * heads,
            bottom=0.6,
        )

    @property
    def width(self) -> float:
        """Of the paper, in inches."""
        return self.left + self.panels_width + self.right

    @property
    def height(self) -> float:
        """Of the paper, in inches."""
        return self.bottom + self.panels_height + self.top

    def gridspec(self) -> dict[str, float]:
        """Return the layout for matplotlib: fractions of the figure, and of a facet."""
        return {
            "left": self.left / self.width,
            "right": 1 - self.right / self.width,
            "bottom": self.bottom / self.height,
            "top": 1 - self.top / self.height,
            "wspace": self.gap_x,
            "hspace": self.gap_y,
        }


def _head(name: str | None, text: str, with_name: bool) -> str:
    """Label a row or a column with its value, and with its field's name if there is space."""
    assert name is not None
    if with_name and len(name) + len(text) < 12:
        return f"{name} {text}"
    lines = textwrap.wrap(text, 15, max_lines=3, placeholder=" …")
    return "\n".join([name, *lines] if with_name else lines)


def _label_lines(label: str) -> list[str]:
    """Return a facet's label in up to three lines, no value on another line than its field."""
    joined = re.sub(r"(?<!,) (?=[^ ,]+(?:,|$))", "\N{NO-BREAK SPACE}", label)
    return textwrap.wrap(joined, 34, max_lines=3, placeholder=" …")


def _title(grid: FacetGrid, width_in: float) -> str:
    prompts = distinct_values(
        tuple(record for facet in grid.facets for record in facet.records), "prompt"
    )
    lines = []
    if len(prompts) == 1:
        lines += textwrap.wrap(f"“{prompts[0]}”", width=int(width_in * 10), max_lines=4)
    if grid.heading and list(grid.fixed) != ["prompt"]:
        lines.append(grid.heading)
    record = grid.facets[0].record
    if len(grid.facets) == 1 and not grid.facets[0].label and record is not None:
        lines.append(describe({name: record[name] for name in ("temperature", "cfg_coef", "seed")}))
    return "\n".join(lines)
