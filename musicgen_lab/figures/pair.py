"""Two clips side by side: their spectrograms, the difference, and a table of their features."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musicgen_lab.analysis.features import FEATURES, NUMBERS, chosen_features, measure
from musicgen_lab.analysis.spectrogram import MelSpectrogram, mel_spectrogram_db
from musicgen_lab.fields import SWEEP_ORDER
from musicgen_lab.figures.drawing import Drawing, lab_style
from musicgen_lab.figures.mel_pictures import COLOUR_MAP, LEVEL_RANGE_DB, label_mel_axes
from musicgen_lab.formatting import FieldLabels, decimals_for, signed, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from musicgen_lab.clip import Clip

DIFFERENCE_MAP = "berlin"  # diverging from black, distinguishable for colour-blind readers
DIFFERENCE_RANGE_DB = 40.0
WIDTH_IN, PANEL_IN, TABLE_ROW_IN = 8.2, 1.9, 0.24
TABLE_COLUMNS = (0.0, 0.64, 0.82, 1.0)


class Row(NamedTuple):
    """One line of the table: a feature of both clips, and the difference."""

    label: str
    a: str
    b: str
    change: str


@lab_style()
def plot_pair(a: Clip, b: Clip, features: Sequence[str] | None = None) -> Drawing:
    """Draw two clips on the same axes: spectrograms, their difference in dB, their features.

    Parameters
    ----------
    a, b : Clip
        From `Results.clip`, of one run or of two.
    features : sequence of str, optional
        Rows of the table; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    from matplotlib.figure import Figure

    mels = [
        mel_spectrogram_db(np.nan_to_num(clip.samples), clip.sample_rate)
        if clip.samples.size
        else None
        for clip in (a, b)
    ]
    names = _names(a, b)
    rows = feature_rows(a, b, [name for name in chosen_features(features) if name in FEATURES])
    heights = [PANEL_IN] * 3 + [TABLE_ROW_IN * (len(rows) + 1)]
    figure = Figure((WIDTH_IN, sum(heights) + 0.3))
    *panels, table = figure.subplots(4, height_ratios=heights)
    highest_db = max((float(mel.level_db.max()) for mel in mels if mel is not None), default=0.0)
    high_db = max(10 * np.ceil(highest_db / 10), -60.0)
    duration_s = max(a.duration_s, b.duration_s, 0.01)
    levels = (high_db - LEVEL_RANGE_DB, high_db)
    differences = (-DIFFERENCE_RANGE_DB, DIFFERENCE_RANGE_DB)
    for axes, mel, name in zip(panels, mels, names, strict=False):
        _draw(axes, mel, levels, COLOUR_MAP, "dB re full scale")
        axes.set_title("\n".join(textwrap.wrap(name, 92, max_lines=2, placeholder=" …")))
        axes.tick_params(labelbottom=False)
    _draw(panels[2], _difference(*mels), differences, DIFFERENCE_MAP, "dB")
    panels[2].set_title("B − A: red where B is louder, blue where A is")
    panels[2].set_xlabel("Time (s)")
    for axes in panels:
        label_mel_axes(axes, duration_s, max(a.sample_rate, b.sample_rate) / 2)
    _write_table(table, rows)
    return Drawing(figure, _alt(names, rows))


def feature_rows(a: Clip, b: Clip, features: Sequence[str]) -> list[Row]:
    """Format the features of two clips and their difference, each in its unit."""
    measured = [measure(clip.samples, clip.sample_rate) for clip in (a, b)]
    rows = []
    for name in features:
        feature = FEATURES[name]
        label = f"{feature.label} ({feature.unit})"
        if name not in NUMBERS:
            first_text, second_text = (value(values[name]) for values in measured)
            rows.append(Row(label, first_text, second_text, ""))
            continue
        first, second = (_number(values[name]) for values in measured)
        finite_values = [number for number in (first, second) if np.isfinite(number)]
        decimals = decimals_for((min(finite_values), max(finite_values))) if finite_values else 0
        texts = [signed(n, decimals) if np.isfinite(n) else "–" for n in (first, second)]
        change = signed(second - first, decimals, plus=True) if len(finite_values) == 2 else "–"
        rows.append(Row(label, texts[0], texts[1], change))
    return rows


def _number(measured: float | str | bool | None) -> float:
    return float(measured) if isinstance(measured, int | float) else float("nan")


def _names(a: Clip, b: Clip) -> tuple[str, str]:
    """Return the labels of two clips: the fields in which they differ."""
    both = [
        {name: getattr(clip.request, name) for name in SWEEP_ORDER if name != "model"}
        | {"model": clip.request.model or ""}
        for clip in (a, b)
    ]
    apart = [name for name in SWEEP_ORDER if both[0][name] != both[1][name]]
    labels = FieldLabels.of(list(dict.fromkeys(fields["prompt"] for fields in both)))
    first, second = (
        labels.describe({name: fields[name] for name in apart}) or "the same request"
        for fields in both
    )
    return f"A: {first}", f"B: {second}"


def _difference(a: MelSpectrogram | None, b: MelSpectrogram | None) -> MelSpectrogram | None:
    """Return B − A in dB where both are audible, on A's bands and over the shorter duration."""
    if a is None or b is None:
        return None
    frames = min(a.level_db.shape[1], b.level_db.shape[1])
    first, second = a.level_db[:, :frames], b.level_db[:, :frames]
    if not np.array_equal(a.frequencies_hz, b.frequencies_hz):
        second = np.stack(
            [np.interp(a.frequencies_hz, b.frequencies_hz, second[:, t]) for t in range(frames)],
            axis=1,
        )
    floor_db = max(float(first.max()), float(second.max())) - LEVEL_RANGE_DB
    level_db = np.maximum(second, floor_db) - np.maximum(first, floor_db)
    return MelSpectrogram(level_db.astype(np.float32), a.frequencies_hz, a.times_s[:frames])


def _draw(
    axes: Axes,
    mel: MelSpectrogram | None,
    limits: tuple[float, float],
    colours: str,
    unit: str,
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    scale = ScalarMappable(Normalize(*limits), cmap=colours)
    ticks = MaxNLocator(4)
    bar = axes.figure.colorbar(scale, ax=axes, label=unit, ticks=ticks, aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    if mel is None or mel.level_db.shape[1] == 0:
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")
        return
    axes.imshow(mel.level_db, cmap=colours, clim=limits, extent=mel.extent)


def _write_table(axes: Axes, rows: Sequence[Row]) -> None:
    """Write the features as a table without lines."""
    axes.set_axis_off()
    axes.set_ylim(len(rows) + 0.5, -0.5)
    for y, row in enumerate([Row("", "A", "B", "B − A"), *rows]):
        for x, text in zip(TABLE_COLUMNS, row, strict=True):
            side = "right" if x else "left"
            axes.text(x, y, text, ha=side, va="center", fontweight="normal" if y else "bold")


def _alt(names: tuple[str, str], rows: Sequence[Row]) -> str:
    table = "; ".join(f"{row.label}: {row.a} and {row.b}" for row in rows)
    return (
        f"Mel spectrograms of two clips and the difference of their levels. {names[0]}. "
        f"{names[1]}. {table}."
    )
