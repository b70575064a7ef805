"""Long clips over time: what is measured of each window, with the seams between windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.drift import (
    SHORTEST_S,
    WINDOW_MEASURES,
    WindowMeasure,
    WindowValues,
)
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import ACCENT, MUTED, Drawing, add_title, lab_style
from musicgen_lab.figures.mel_pictures import COLOUR_MAP, MelPictures, label_mel_axes, mark_seams
from musicgen_lab.formatting import decimals_for, describe, mid_sentence, signed, with_unit
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.runs.derived import window_values
from musicgen_lab.runs.run_table import RunTable, seams_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_IN = (6.4, 1.35)
COLUMN_IN = 4.4  # of several
GROUPS_MAX = 3
SPECTROGRAM_IN = 2.2
SPECTROGRAM_HOP_S = 0.1


@dataclass(frozen=True)
class LongClips:
    """Clips whose windows join at the same times.

    Attributes
    ----------
    records : tuple of Mapping
        Their rows.
    windows : tuple of sequence of Mapping
        What is measured of each clip's windows.
    """

    records: tuple[Mapping[str, Any], ...]
    windows: tuple[Sequence[WindowValues], ...]

    @property
    def edges_s(self) -> Array:
        """Where windows begin and end, in seconds: one more than there are windows."""
        windows = self.windows[0]
        return np.array([windows[0]["start_s"], *(window["end_s"] for window in windows)])

    @property
    def label(self) -> str:
        """The fields that say where the windows join."""
        return describe({name: self.records[0][name] for name in ("duration", "extend_stride")})

    def values(self, name: str) -> Array:
        """Return a measure of every clip and window, (clips, windows)."""
        return np.array([[window[name] for window in windows] for windows in self.windows])


def long_clips(table: RunTable) -> list[LongClips]:
    """Return the clips of a run that have several windows, by where these join."""
    groups: dict[tuple[float, ...], list[tuple[Mapping[str, Any], Sequence[WindowValues]]]] = {}
    for record, windows in zip(table.records, window_values(table), strict=True):
        if len(windows) > 1:
            edges_s = tuple(round(window["end_s"], 1) for window in windows)
            groups.setdefault(edges_s, []).append((record, windows))
    return [
        LongClips(*(tuple(column) for column in zip(*groups[edges_s], strict=True)))
        for edges_s in sorted(groups)
    ]


@lab_style()
def plot_drift(table: RunTable) -> Drawing:
    """Draw how clips of over 30 s change from window to window.

    Each clip is a line in steps, one step for each window: what it adds to the clip. Dotted lines
    are the seams between windows; the thick line is the mean of the clips whose windows join at the
    same times, which have a column of their own. A single clip has its spectrogram above.

    Parameters
    ----------
    table : RunTable

    Raises
    ------
    InvalidRequest
        When no clip is longer than 35 s.
    """
    from matplotlib.figure import Figure

    groups = long_clips(table)
    if not groups:
        raise InvalidRequest(
            f"no clip in {table.folder} is long enough for two windows to compare, over "
            f"{WINDOW_S + SHORTEST_S:g} s; "
            "plot_curves draws the others",
            field="results",
        )
    shown = groups[:GROUPS_MAX]
    count = sum(len(group.records) for group in shown)
    heights = [PANEL_IN[1]] * len(WINDOW_MEASURES)
    if count == 1:
        heights = [SPECTROGRAM_IN, *heights]
    width = PANEL_IN[0] if len(shown) == 1 else COLUMN_IN * len(shown)
    figure = Figure((width + 0.8, sum(heights) + 0.8))
    panels = figure.subplots(
        len(heights), len(shown), squeeze=False, sharex="col", height_ratios=heights
    )
    for column, group in enumerate(shown):
        if count == 1:
            _draw_spectrogram(panels[0, 0], table, group.records[0])
        measured = panels[-len(WINDOW_MEASURES) :, column]
        for axes, measure in zip(measured, WINDOW_MEASURES, strict=True):
            _draw_measure(axes, group, measure)
            axes.set_title(f"{measure.label} ({measure.unit})" if column == 0 else "")
        for axes in measured:
            for at_s in seams_of(group.records[0]):
                axes.axvline(at_s, color=MUTED, linestyle=":", linewidth=1)
        panels[-1, column].set_xlabel("Time (s)")
        if len(shown) > 1:
            panels[0, column].annotate(
                group.label, (1, 1.03), xycoords="axes fraction", ha="right", fontsize=8.5
            )
    title = "One step for each window of a clip; dotted where windows join."
    if any(len(group.records) > 1 for group in shown):
        title += " The thick line is the mean."
    if len(groups) > len(shown):
        title += f" The first {len(shown)} of {len(groups)} lengths of clips and windows."
    add_title(figure, title)
    return Drawing(figure, f"{title} {_alt(shown)}")


def _draw_measure(axes: Axes, group: LongClips, measure: WindowMeasure) -> None:
    values, edges_s = group.values(measure.name), group.edges_s
    is_one = len(values) == 1
    for row in values:
        axes.stairs(
            row,
            edges_s,
            baseline=None,
            color=ACCENT if is_one else MUTED,
            alpha=1.0 if is_one else 0.6,
            linewidth=1.6 if is_one else 0.9,
        )
    if not is_one:
        axes.stairs(_mean(values), edges_s, baseline=None, color=ACCENT, linewidth=2)
    axes.set_xlim(0, edges_s[-1])
    if np.isnan(values).all():
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center")
        axes.set_yticks([])


def _mean(values: Array) -> Array:
    """Return the mean over clips of each window; NaN where no clip has a value."""
    count = np.isfinite(values).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _draw_spectrogram(axes: Axes, table: RunTable, record: Mapping[str, Any]) -> None:
    pictures = MelPictures(table)
    mel = table.mel_spectrograms(SPECTROGRAM_HOP_S)[record["key"]]
    low_db, high_db = pictures.level_limits_db
    axes.imshow(mel.level_db, cmap=COLOUR_MAP, vmin=low_db, vmax=high_db, extent=mel.extent)
    label_mel_axes(axes, record["duration_s"], record["sample_rate_hz"] / 2)
    mark_seams(axes, record)


def _alt(groups: Sequence[LongClips]) -> str:
    """Return the means of the first and the last window in words."""
    parts = []
    for group in groups:
        texts = []
        for measure in WINDOW_MEASURES:
            first, *_, last = _mean(group.values(measure.name))
            if np.isfinite(first) and np.isfinite(last):
                decimals = decimals_for((min(first, last), max(first, last)))
                words = " to ".join(signed(float(value), decimals) for value in (first, last))
                texts.append(f"{mid_sentence(measure.label)} {with_unit(words, measure.unit)}")
        clips = "1 clip" if len(group.records) == 1 else f"{len(group.records)} clips"
        parts.append(f"{group.label}, {clips}, from the first window to the last: ")
        parts[-1] += ", ".join(texts) or "no value"
    return f"{'; '.join(parts)}."
