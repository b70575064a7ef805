"""The listening grid: for every clip its picture, its values and a player, as HTML.

It works in a notebook, with the sounds inside it, and in the report, with small files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import FEATURES, chosen_features
from musicgen_lab.analysis.spectrogram import mel_to_hz
from musicgen_lab.figures.facets import Facet, FacetGrid, clip_grids
from musicgen_lab.figures.mel_pictures import (
    COLOUR_MAP,
    LEVEL_RANGE_DB,
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    MelPictures,
)
from musicgen_lab.formatting import format_value, signed, value_with_unit
from musicgen_lab.listening.previews import (
    MATCHED_LUFS,
    EmbeddedPreviews,
    FilePreviews,
    Preview,
)
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    from IPython.display import HTML

FEATURES_UNDER_PLAYER = 3
STYLE_PATH = Path(__file__).parent / "listening.css"


def listening_grid(
    table: RunTable,
    *,
    features: Sequence[str] = (),
    level_range_db: float = LEVEL_RANGE_DB,
    copies: FilePreviews | EmbeddedPreviews | None = None,
) -> HTML:
    """Show every clip of a run as a picture with a player, in the order of the sweep.

    Temperature goes down and cfg_coef across where they are swept, see
    `figures.facets.clip_grids`. The players play listening copies (MP3) at each clip's own level;
    a clip that goes beyond full scale is played quieter, and it says so by how much. On a page
    whose copies are files, a switch plays loudness-matched ones instead.

    Parameters
    ----------
    table : RunTable
    features : sequence of str
        Whose values stand under each player.
    level_range_db : float > 0
        From the lightest colour of the pictures down to the darkest, in dB.
    copies : FilePreviews or EmbeddedPreviews, optional
        Where the sounds are. The default are files in the run folder: their links are relative, so
        show them in a page that lies there.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    RunFolderUnwritable
        When the listening copies cannot be written.
    InvalidRequest
        When they are to be embedded and are too many.
    """
    from IPython.display import HTML

    pictures = MelPictures(table, level_range_db=level_range_db)
    copies = copies or FilePreviews(table.folder)
    grids = clip_grids(table)
    parts = [legend(pictures)]
    if isinstance(copies, FilePreviews) and pictures.by_key:
        parts.append(LOUDNESS_SWITCH)
    for grid in grids:
        sources = {
            facet.record["key"]: copies.of(table, facet.record["key"], pictures)
            for facet in grid.facets
            if facet.record is not None and facet.record["key"] in pictures.by_key
        }
        cells = ClipCells(sources, tuple(features))
        if grid.heading:
            parts.append(f"<h3>{escape(grid.heading)}</h3>")
        parts.append(_list(grid, cells) if grid.is_list else _table(grid, cells))
    if not grids:
        parts.append("<p>No clip has been made yet.</p>")
    return HTML(styled("".join(parts)))


def styled(content: str) -> str:
    """Return listening cells with the style that they need."""
    style = STYLE_PATH.read_text(encoding="utf-8")
    return f'<div class="listening"><style>{style}</style>{content}</div>'


def report_grid(
    table: RunTable, features: Sequence[str] | None = None, *, level_range_db: float
) -> HTML:
    """Show the listening grid in a report, with the sounds beside it and a loudness switch.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The first three stand under each player; see `features.chosen_features`.
    level_range_db : float > 0
        As for `listening_grid`.
    """
    return listening_grid(table, features=shown_features(features), level_range_db=level_range_db)


def listen(
    table: RunTable, *, features: Sequence[str] | None = None, matched: bool = False
) -> HTML:
    """Show the listening grid in a notebook, with the sounds inside it.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        As for `report_grid`.
    matched : bool
        Play every clip at the same loudness, for listening only; the clips stay as they were made.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or all sounds together are more than 32 MB.
    """
    copies = EmbeddedPreviews(matched=matched)
    return listening_grid(table, features=shown_features(features), copies=copies)


def shown_features(features: Sequence[str] | None) -> list[str]:
    """Return the features whose values stand under a player."""
    return chosen_features(features)[:FEATURES_UNDER_PLAYER]


LOUDNESS_SWITCH = (
    '<fieldset class="loudness"><legend>Play</legend>'
    '<label><input type="radio" name="loudness" value="made" checked> as made</label>'
    '<label><input type="radio" name="loudness" value="matched"> loudness-matched '
    f"({signed(MATCHED_LUFS, 0)} LUFS)</label></fieldset>"
)


def legend(pictures: MelPictures) -> str:
    """Say what the pictures' axes and colours mean."""
    from matplotlib import colormaps

    stops = ", ".join(
        "#" + "".join(f"{round(255 * part):02x}" for part in colormaps[COLOUR_MAP](share)[:3])
        for share in np.linspace(0, 1, 9)
    )
    low_db, high_db = pictures.level_limits_db
    highest_khz = float(mel_to_hz(np.array(pictures.mel_limits[1]))) / 1000
    colours = f'<i style="background: linear-gradient(to right, {stops})"></i>'
    return (
        f'<p class="listening-legend">Each picture is a mel spectrogram: time to the right, 0 to '
        f"{pictures.duration_s:.3g} s; frequency upwards, 0 to {highest_khz:.3g} kHz; the same "
        f"colours for every clip, <span>{_signed(low_db)} {colours} "
        f"{_signed(high_db)} dB re full scale.</span></p>"
    )


def _signed(level_db: float) -> str:
    return f"{level_db:g}".replace("-", "−")


def _table(grid: FacetGrid, cells: ClipCells) -> str:
    """Return a grid page as a table, so that a screen reader tells each player's place."""
    assert grid.row_field is not None and grid.column_field is not None
    heads = "".join(
        f'<th scope="col">{_head(grid.column_field, value)}</th>' for value in grid.column_values
    )
    rows = [f"<tr><td></td>{heads}</tr>"]
    for row, value in enumerate(grid.row_values):
        here = grid.facets[row * grid.columns : (row + 1) * grid.columns]
        row_cells = "".join(f"<td>{cells.show(facet)}</td>" for facet in here)
        rows.append(f'<tr><th scope="row">{_head(grid.row_field, value)}</th>{row_cells}</tr>')
    axes = f"{grid.row_field} down, {grid.column_field} across"
    name = escape(", ".join(filter(None, [f"Listening grid: {axes}", grid.heading])), quote=True)
    return (
        f'<div class="listening-scroll" role="region" aria-label="{name}" tabindex="0">'
        f'<table class="listening-grid" style="--columns: {grid.columns}">{"".join(rows)}</table>'
        "</div>"
    )


def _head(name: str, value: Any) -> str:
    whole = escape(format_value(name, value, shorten=None), quote=True)
    return f'{escape(name)} <b title="{whole}">{escape(format_value(name, value))}</b>'


def _list(grid: FacetGrid, cells: ClipCells) -> str:
    items = "".join(f"<li>{cells.show(facet)}</li>" for facet in grid.facets)
    return f'<ul class="listening-list">{items}</ul>'


@dataclass(frozen=True)
class ClipCells:
    """How each clip of a listening page is shown.

    Attributes
    ----------
    copies : Mapping of str to Preview
        By the clip's key; those without samples have none.
    features : tuple of str
        Whose values stand under each player.
    """

    copies: Mapping[str, Preview]
    features: tuple[str, ...]

    def show(self, facet: Facet) -> str:
        """Return one clip's picture, label and player, or what stands in its place."""
        label = escape(facet.label or "the clip", quote=True)
        caption = f"<figcaption>{label}"
        record = facet.record
        if record is None:
            return f'<figure class="missing"><div>not made yet</div>{caption}</figcaption></figure>'
        if facet.status == "failed":
            error = escape(str(record["error"]))
            return (
                f'<figure class="failed"><div>failed</div>{caption} <em>{error}</em></figcaption>'
                "</figure>"
            )
        copy = self.copies.get(record["key"])
        if copy is None:
            return f'<figure class="missing"><div>no samples</div>{caption}</figcaption></figure>'
        notes = _notes(record)
        said = f" <em>{escape('; '.join(notes))}</em>" if notes else ""
        matched = f' data-matched="{copy.matched}"' if copy.matched != copy.as_made else ""
        lazy = "" if copy.picture.startswith("data:") else 'loading="lazy" '
        return (
            f'<figure><img src="{copy.picture}" {lazy}'
            f'width="{PICTURE_WIDTH}" height="{PICTURE_HEIGHT}" '
            f'alt="Mel spectrogram: {label}{escape("; " + "; ".join(notes)) if notes else ""}">'
            f'<audio controls preload="none" src="{copy.as_made}"{matched} '
            f'aria-label="Play {label}"></audio>'
            f"{caption}{self._values(record)}{said}</figcaption></figure>"
        )

    def _values(self, record: Mapping[str, Any]) -> str:
        said = [
            f"<span>{escape(FEATURES[name].label)} "
            f"<b>{escape(value_with_unit(record[name], FEATURES[name].unit))}</b></span>"
            for name in self.features
        ]
        return f'<small class="values">{" ".join(said)}</small>' if said else ""


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Return what a listener should know of a clip."""
    notes = ["silent"] if record["is_silent"] is True else []
    if record["peak_dbfs"] > 0:
        beyond = f"{record['peak_dbfs']:.1f} dB"
        notes.append(f"peaks {beyond} above full scale: played {beyond} quieter")
    return notes
