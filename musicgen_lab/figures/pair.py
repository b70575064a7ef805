"""Two clips side by side: their spectrograms, the difference, and a table of their features."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musicgen_lab.analysis.features import FEATURES, NUMBERS, chosen_features, measure
from musicgen_lab.analysis.spectrogram import MelSpectrogram, hz_to_mel, mel_spectrogram_db
from musicgen_lab.figures.drawing import INK, MUTED, PAPER, Drawing
from musicgen_lab.figures.mel_pictures import COLOUR_MAP, LEVEL_RANGE_DB
from musicgen_lab.formatting import FieldLabels, decimals_for, signed, value
from musicgen_lab.request import SWEEP_ORDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from musicgen_lab.clip import Clip

DIFFERENCE_MAP = "PuOr_r"  # diverging, distinguishable for colour-blind readers
DIFFERENCE_RANGE_DB = 40.0
FREQUENCIES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)
WIDTH_IN, PANEL_IN, GAP_IN, TABLE_ROW_IN = 8.2, 1.55, 0.5, 0.24
LEFT_IN, RIGHT_IN, BOTTOM_IN = 0.75, 1.15, 0.55


class Row(NamedTuple):
    """One line of the table: a feature of both clips, and the difference."""

    label: str
    a: str
    b: str
    change: str


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
    table_in = TABLE_ROW_IN * (len(rows) + 1) + 0.35
    heads = [textwrap.wrap(name, 92, max_lines=2, placeholder=" …") for name in names]
    top_in = 0.35 + 0.18 * max(map(len, heads))
    height = top_in + 3 * PANEL_IN + 2 * GAP_IN + BOTTOM_IN + table_in
    figure = Figure(figsize=(WIDTH_IN, height), dpi=120, facecolor=PAPER)
    highest_db = max((float(mel.level_db.max()) for mel in mels if mel is not None), default=0.0)
    high_db = max(10 * np.ceil(highest_db / 10), -60.0)
    duration_s = max(a.duration_s, b.duration_s, 0.01)
    rate = max(a.sample_rate, b.sample_rate)
    for index, mel in enumerate([*mels, _difference(*mels)]):
        place = figure.add_axes(
            _box(height - top_in - PANEL_IN - index * (PANEL_IN + GAP_IN), PANEL_IN, height)
        )
        is_difference = index == 2
        limits = (
            (-DIFFERENCE_RANGE_DB, DIFFERENCE_RANGE_DB)
            if is_difference
            else (high_db - LEVEL_RANGE_DB, high_db)
        )
        _draw(place, mel, limits, DIFFERENCE_MAP if is_difference else COLOUR_MAP)
        _label(place, duration_s, rate / 2, is_lowest=is_difference)
        title = "B − A: orange where B is louder" if is_difference else "\n".join(heads[index])
        place.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
        _colour_bar(figure, place, limits, DIFFERENCE_MAP if is_difference else COLOUR_MAP, height)
    _draw_table(figure, rows, table_in, height)
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


def _box(bottom_in: float, panel_in: float, height: float) -> tuple[float, float, float, float]:
    width = WIDTH_IN - LEFT_IN - RIGHT_IN
    return (LEFT_IN / WIDTH_IN, bottom_in / height, width / WIDTH_IN, panel_in / height)


def _draw(
    axes: Axes, mel: MelSpectrogram | None, limits: tuple[float, float], colours: str
) -> None:
    if mel is None or mel.level_db.shape[1] == 0:
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", color=INK)
        return
    bands = hz_to_mel(mel.frequencies_hz)
    half_band = (bands[1] - bands[0]) / 2
    half_hop = (mel.times_s[1] - mel.times_s[0]) / 2 if len(mel.times_s) > 1 else 0.01
    axes.imshow(
        mel.level_db,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=(
            mel.times_s[0] - half_hop,
            mel.times_s[-1] + half_hop,
            bands[0] - half_band,
            bands[-1] + half_band,
        ),
    )


def _label(axes: Axes, duration_s: float, nyquist_hz: float, *, is_lowest: bool) -> None:
    axes.set_xlim(0, duration_s)
    axes.set_ylim(0, float(hz_to_mel(np.array(nyquist_hz))))
    ticks = [hz for hz in FREQUENCIES_HZ if hz < nyquist_hz and hz >= 500]
    axes.set_yticks(hz_to_mel(np.array(ticks, float)), [f"{hz / 1000:g}" for hz in ticks])
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK, labelbottom=is_lowest)
    axes.set_ylabel("kHz, mel scale", fontsize=8.5, color=INK)
    if is_lowest:
        axes.set_xlabel("Time (s)", fontsize=9, color=INK)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)


def _colour_bar(
    figure: Figure, axes: Axes, limits: tuple[float, float], colours: str, height: float
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    box = axes.get_position()
    place = figure.add_axes((box.x1 + 0.12 / WIDTH_IN, box.y0, 0.12 / WIDTH_IN, box.height))
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), cmap=colours), cax=place)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    unit = "dB" if colours == DIFFERENCE_MAP else "dB re full scale"
    place.set_ylabel(unit, fontsize=8.5, color=INK)
    place.tick_params(labelsize=8, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _draw_table(figure: Figure, rows: Sequence[Row], table_in: float, height: float) -> None:
    columns = ((LEFT_IN, "left"), (4.9, "right"), (6.0, "right"), (7.1, "right"))
    for index, row in enumerate([Row("", "A", "B", "B − A"), *rows]):
        y = (table_in - 0.2 - index * TABLE_ROW_IN) / height
        for (x, side), text in zip(columns, row, strict=True):
            figure.text(
                x / WIDTH_IN,
                y,
                text,
                ha=side,
                va="center",
                fontsize=9,
                fontweight="bold" if index == 0 else "normal",
                color=INK,
                parse_math=False,
            )


def _alt(names: tuple[str, str], rows: Sequence[Row]) -> str:
    table = "; ".join(f"{row.label}: {row.a} and {row.b}" for row in rows)
    return (
        f"Mel spectrograms of two clips and the difference of their levels. {names[0]}. "
        f"{names[1]}. {table}."
    )
