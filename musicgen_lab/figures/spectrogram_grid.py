"""One page of panels as a matplotlib figure: labelled axes, one colour scale, alt text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.spectrogram import hz_to_mel
from musicgen_lab.figures.drawing import INK, MUTED, PAPER, Drawing
from musicgen_lab.figures.facets import Page, Panel, format_value
from musicgen_lab.figures.mel_pictures import COLOUR_MAP, MelPictures
from musicgen_lab.figures.page_frame import PageFrame, head, label_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from musicgen_lab.results import Results

_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000)


def draw_page(page: Page, results: Results, pictures: MelPictures) -> Drawing:
    """Draw one page of panels; see `spectrogram_grid`.

    Parameters
    ----------
    page : Page
    results : Results
        Where the page is from.
    pictures : MelPictures
        The run's spectrograms, made once for all of its pages.
    """
    from matplotlib.figure import Figure

    frame = PageFrame.around(page, results)
    figure = Figure(figsize=(frame.width, frame.height), dpi=120, facecolor=PAPER)
    axes = figure.subplots(page.rows, page.columns, squeeze=False, gridspec_kw=frame.gridspec())
    size = 8.5 if page.columns <= 4 else 7.5
    for panel in page.panels:
        _draw_panel(axes[panel.row, panel.column], panel, pictures, size, small=page.columns > 4)
    for place in axes.ravel()[len(page.panels) :]:
        place.set_axis_off()
    _label_axes(axes, page, pictures, size)
    centre_x = (frame.left + frame.panels_width / 2) / frame.width
    centre_y = (frame.bottom + frame.panels_height / 2) / frame.height
    label: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 10, "color": INK}
    figure.text(centre_x, 0.22 / frame.height, "Time (s)", **label)
    figure.text(0.2 / frame.width, centre_y, "Frequency (kHz), mel scale", rotation=90, **label)
    figure.text(
        centre_x,
        1 - 0.14 / frame.height,
        frame.title,
        ha="center",
        va="top",
        fontsize=12,
        linespacing=1.3,
        color=INK,
        parse_math=False,
    )
    _add_colour_bar(figure, frame, pictures, size)
    return Drawing(figure, _alt(page, results))


def _alt(page: Page, results: Results) -> str:
    """Say in words what a page shows, for those who cannot see it."""
    made = [panel for panel in page.panels if panel.status in ("ok", "silent")]
    parts = [f"{len(made)} mel spectrograms" if len(made) != 1 else "A mel spectrogram"]
    for name, values, where in (
        (page.row_field, page.row_values, "from top to bottom"),
        (page.column_field, page.column_values, "from left to right"),
    ):
        if name is not None:
            listed = ", ".join(format_value(name, value) for value in values)
            parts.append(f"{name} {listed} {where}")
    if page.is_list and results.swept:
        parts.append("; ".join(panel.label for panel in page.panels))
    if page.heading:
        parts.append(f"all with {page.heading}")
    for status in ("failed", "silent", "missing"):
        labels = [panel.label for panel in page.panels if panel.status == status]
        if labels:
            parts.append(f"{status}: {'; '.join(labels) or 'the only clip'}")
    return ". ".join(parts) + "."


def _draw_panel(
    axes: Axes, panel: Panel, pictures: MelPictures, size: float, *, small: bool
) -> None:
    low_db, high_db = pictures.level_limits_db
    axes.set_xlim(0, pictures.duration_s)
    axes.set_ylim(*pictures.mel_limits)
    status = panel.status
    for spine in axes.spines.values():
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    if status == "missing":
        axes.spines[:].set_linestyle((0, (2, 3)))
        axes.patch.set_alpha(0)
        return
    record = panel.record
    assert record is not None
    if status == "failed":
        axes.set_facecolor("#d9d7de")
        axes.patch.set(hatch="////", edgecolor=MUTED, linewidth=0)
        error = str(record["error"]).split(":")[0]
        _note(axes, "failed" if small else f"failed\n{textwrap.shorten(error, 28)}", size)
        return
    mel = pictures.by_key.get(record["key"])
    if mel is not None:
        band_mel = hz_to_mel(mel.frequencies_hz)
        half_band = (band_mel[1] - band_mel[0]) / 2
        hop_s = mel.times_s[1] - mel.times_s[0] if len(mel.times_s) > 1 else record["duration_s"]
        axes.imshow(
            mel.level_db,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap=COLOUR_MAP,
            vmin=low_db,
            vmax=high_db,
            extent=(
                -hop_s / 2,
                mel.times_s[-1] + hop_s / 2,
                band_mel[0] - half_band,
                band_mel[-1] + half_band,
            ),
        )
        axes.set_xlim(0, pictures.duration_s)
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
        parse_math=False,
    )


def _label_axes(axes: Any, page: Page, pictures: MelPictures, size: float) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = [hz for hz in _TICKS_HZ if hz_to_mel(np.array(hz)) < pictures.mel_limits[1] + 1]
    if page.rows > 3:
        ticks = [hz for hz in ticks if hz in (500, 2000, 8000, 32000)]
    for panel in page.panels:
        place = axes[panel.row, panel.column]
        is_lowest = page.columns * (panel.row + 1) + panel.column >= len(page.panels)
        place.tick_params(
            labelsize=size,
            length=2.5,
            color=MUTED,
            labelcolor=INK,
            labelbottom=is_lowest,
            labelleft=panel.column == 0,
        )
        place.set_yticks(hz_to_mel(np.array(ticks)), [f"{hz / 1000:g}" for hz in ticks])
        place.set_ylim(*pictures.mel_limits)
        # The last number would touch the next panel's first.
        prune = "upper" if panel.column < page.columns - 1 else None
        nbins = 5 if page.columns <= 4 else 3
        place.xaxis.set_major_locator(MaxNLocator(nbins, steps=[1, 2, 5, 10], prune=prune))
        if page.is_list and panel.label:
            place.set_title(
                "\n".join(label_lines(panel.label)), fontsize=size, color=INK, parse_math=False
            )
    for column, value in enumerate(page.column_values):
        text = head(page.column_field, value, column == 0 or page.columns <= 4)
        axes[0, column].set_title(text, fontsize=size + 1, color=INK, parse_math=False)
    for row, value in enumerate(page.row_values):
        axes[row, -1].annotate(
            head(page.row_field, value, row == 0 or page.rows <= 4),
            xy=(1, 0.5),
            xytext=(7, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=size + 1,
            color=INK,
            parse_math=False,
        )


def _add_colour_bar(figure: Figure, frame: PageFrame, pictures: MelPictures, size: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height = min(frame.panels_height, 4.0)
    place = figure.add_axes(
        (
            1 - 0.95 / frame.width,
            (frame.bottom + (frame.panels_height - height) / 2) / frame.height,
            0.14 / frame.width,
            height / frame.height,
        )
    )
    scale = ScalarMappable(Normalize(*pictures.level_limits_db), cmap=COLOUR_MAP)
    bar = figure.colorbar(scale, cax=place, extend="min", extendfrac=0.03)
    bar.set_label("Level of a mel band (dB re full scale)", fontsize=9, color=INK)
    place.tick_params(labelsize=size, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
