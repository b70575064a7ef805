"""The listening grid: for every clip its picture, its values and a player, as HTML.

It works in a notebook, with the sounds inside it, and in the report, with small files beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.figures.facets import Page, format_value, pages
from musicgen_lab.figures.mel_pictures import (
    COLOUR_MAP,
    LEVEL_RANGE_DB,
    MelPictures,
)
from musicgen_lab.formatting import signed
from musicgen_lab.listening.cell import ClipCells
from musicgen_lab.listening.previews import (
    MATCHED_LUFS,
    EmbeddedCopies,
    FileCopies,
)
from musicgen_lab.stats.study_tables import chosen_features

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.results import Results

FEATURES_UNDER_PLAYER = 3
STYLE_PATH = Path(__file__).parent / "listening.css"


def listening_grid(
    results: Results,
    *,
    features: Sequence[str] = (),
    level_range_db: float = LEVEL_RANGE_DB,
    copies: FileCopies | EmbeddedCopies | None = None,
) -> HTML:
    """Show every clip of a run as a picture with a player, in the order of the sweep.

    Temperature goes down and cfg_coef across where they are swept, see
    `figures.facets.pages`. The players play listening copies (MP3) at each clip's own level;
    a clip that goes beyond full scale is played quieter, and it says so by how much. On a page
    whose copies are files, a switch plays loudness-matched ones instead.

    Parameters
    ----------
    results : Results
    features : sequence of str
        Whose values stand under each player.
    level_range_db : float > 0
        From the lightest colour of the pictures down to the darkest, in dB.
    copies : FileCopies or EmbeddedCopies, optional
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

    pictures = MelPictures(results, level_range_db=level_range_db)
    copies = copies or FileCopies(results.folder)
    found = pages(results)
    parts = [legend(pictures)]
    if isinstance(copies, FileCopies) and pictures.by_key:
        parts.append(LOUDNESS_SWITCH)
    for page in found:
        sources = {
            panel.record["key"]: copies.of(results, panel.record["key"], pictures)
            for panel in page.panels
            if panel.record is not None and panel.record["key"] in pictures.by_key
        }
        cells = ClipCells(sources, tuple(features))
        if page.heading:
            parts.append(f"<h3>{escape(page.heading)}</h3>")
        parts.append(_list(page, cells) if page.is_list else _table(page, cells))
    if not found:
        parts.append("<p>No clip has been made yet.</p>")
    return HTML(styled("".join(parts)))


def styled(content: str) -> str:
    """Return listening cells with the style that they need."""
    style = STYLE_PATH.read_text(encoding="utf-8")
    return f'<div class="listening"><style>{style}</style>{content}</div>'


def report_grid(
    results: Results, features: Sequence[str] | None = None, *, level_range_db: float
) -> HTML:
    """Show the listening grid in a report, with the sounds beside it and a loudness switch.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        The first three stand under each player; see `findings.chosen_features`.
    level_range_db : float > 0
        As for `listening_grid`.
    """
    return listening_grid(results, features=shown_features(features), level_range_db=level_range_db)


def listen(
    results: Results, *, features: Sequence[str] | None = None, matched: bool = False
) -> HTML:
    """Show the listening grid in a notebook, with the sounds inside it.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        As for `report_grid`.
    matched : bool
        Play every clip at the same loudness, for listening only; the clips stay as they were made.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or all sounds together are more than 32 MB.
    """
    copies = EmbeddedCopies(matched=matched)
    return listening_grid(results, features=shown_features(features), copies=copies)


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

    from musicgen_lab.analysis.spectrogram import mel_to_hz

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


def _table(page: Page, cells: ClipCells) -> str:
    """Return a grid page as a table, so that a screen reader tells each player's place."""
    assert page.row_field is not None and page.column_field is not None
    heads = "".join(
        f'<th scope="col">{_head(page.column_field, value)}</th>' for value in page.column_values
    )
    rows = [f"<tr><td></td>{heads}</tr>"]
    for row, value in enumerate(page.row_values):
        here = page.panels[row * page.columns : (row + 1) * page.columns]
        row_cells = "".join(f"<td>{cells.show(panel)}</td>" for panel in here)
        rows.append(f'<tr><th scope="row">{_head(page.row_field, value)}</th>{row_cells}</tr>')
    axes = f"{page.row_field} down, {page.column_field} across"
    name = escape(", ".join(filter(None, [f"Listening grid: {axes}", page.heading])), quote=True)
    return (
        f'<div class="listening-scroll" role="region" aria-label="{name}" tabindex="0">'
        f'<table class="listening-grid" style="--columns: {page.columns}">{"".join(rows)}</table>'
        "</div>"
    )


def _head(name: str, value: Any) -> str:
    whole = escape(format_value(name, value, shorten=None), quote=True)
    return f'{escape(name)} <b title="{whole}">{escape(format_value(name, value))}</b>'


def _list(page: Page, cells: ClipCells) -> str:
    items = "".join(f"<li>{cells.show(panel)}</li>" for panel in page.panels)
    return f'<ul class="listening-list">{items}</ul>'
