"""The listening grid: the spectrogram, player and values of every clip, as HTML.

It works in a notebook, with embedded audio, and in the report, with small files beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import FEATURES, chosen_features
from musicgen_lab.analysis.spectrogram import hz_to_mel, mel_to_hz
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
from musicgen_lab.player import player_script, player_style
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML

FEATURES_UNDER_PLAYER = 3
TICKS_KHZ = (0.5, 2, 8)


def listening_grid(
    table: RunTable,
    *,
    features: Sequence[str] = (),
    level_range_db: float = LEVEL_RANGE_DB,
    copies: FilePreviews | EmbeddedPreviews | None = None,
) -> HTML:
    """Return the spectrograms and players of a run's clips, in the order of the sweep.

    Temperature goes down and cfg_coef across where they are swept, see
    `figures.facets.clip_grids`. The players use compressed copies (MP3) at each clip's own level; a
    clip that exceeds full scale is attenuated, and the attenuation is shown. On a page whose copies
    are files, a switch selects loudness-matched ones instead.

    Parameters
    ----------
    table : RunTable
    features : sequence of str
        Features whose values are shown below each player.
    level_range_db : float > 0
        The range of the colour scale, in dB.
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
    pictures = MelPictures(table, level_range_db=level_range_db)
    copies = copies or FilePreviews(table.folder)
    made = copies.of(table, table.frame["key"], pictures)
    grids = [_grid_view(grid, made, features) for grid in clip_grids(table) if made]
    can_match = isinstance(copies, FilePreviews) and bool(made)
    return show(
        "listening/grid.html.j2",
        grids=grids,
        nothing=nothing_to_hear(table),
        **frame(pictures, can_match=can_match),
    )


def nothing_to_hear(table: RunTable) -> str:
    """Say of a run without a single sounding clip why there is none."""
    errors = Counter(str(error) for error in table.frame["error"].dropna())
    if not errors:
        return "No clip has been made yet."
    reasons = "; ".join(f"{error} ({count} times)" for error, count in errors.most_common(3))
    return f"There is nothing to hear: {sum(errors.values())} clips failed. {reasons}."


def report_grid(
    table: RunTable, features: Sequence[str] | None = None, *, level_range_db: float
) -> HTML:
    """Return the listening grid for a report, with audio files and a loudness switch.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The first three that differ between clips are shown below each player; see
        `features.chosen_features`.
    level_range_db : float > 0
        As for `listening_grid`.
    """
    return listening_grid(
        table, features=shown_features(table, features), level_range_db=level_range_db
    )


def listen(
    table: RunTable, *, features: Sequence[str] | None = None, matched: bool = False
) -> HTML:
    """Return the listening grid for a notebook, with embedded audio.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        As for `report_grid`.
    matched : bool
        Play every clip at the same loudness; the stored clips are not changed.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or all audio together is more than 32 MB.
    """
    copies = EmbeddedPreviews(matched=matched)
    return listening_grid(table, features=shown_features(table, features), copies=copies)


def shown_features(table: RunTable, features: Sequence[str] | None) -> list[str]:
    """Return the features whose values are shown below a player: those that tell clips apart."""
    of_a_clip = [name for name in chosen_features(features) if name in FEATURES]
    varying = [name for name in of_a_clip if table.frame[name].nunique() > 1]
    return (varying or of_a_clip)[:FEATURES_UNDER_PLAYER]


def frame(pictures: MelPictures, *, can_match: bool) -> dict[str, Any]:
    """Return the values for the template of listening pages, except for the clips.

    Parameters
    ----------
    pictures : MelPictures
        Their axes and colours are explained on the page.
    can_match : bool
        Whether there are loudness-matched copies to switch to.
    """
    from markupsafe import Markup
    from matplotlib import colormaps

    player = {"script": Markup(player_script()), "style": Markup(player_style())}
    if not pictures.by_key:
        return player | {"loudness_lufs": "", "scale": None}
    low_db, high_db = pictures.level_limits_db
    low_mel, high_mel = pictures.mel_limits
    highest_khz = float(mel_to_hz(np.array(high_mel))) / 1000
    ticks_khz = [khz for khz in TICKS_KHZ if khz < 0.9 * highest_khz]
    ticks_mel = hz_to_mel(1000 * np.array(ticks_khz, float))
    return player | {
        "loudness_lufs": signed(MATCHED_LUFS, 0) if can_match else "",
        "scale": {
            "seconds": round(pictures.duration_s, 3),
            "duration": f"{pictures.duration_s:.3g}",
            "highest_khz": f"{highest_khz:.3g}",
            "ticks": [f"{khz:g}" for khz in ticks_khz],
            "ticks_at": [float(at) for at in 100 * (high_mel - ticks_mel) / (high_mel - low_mel)],
            "low": signed(low_db, 0),
            "high": signed(high_db, 0),
            "colours": [
                "#" + "".join(f"{round(255 * part):02x}" for part in colormaps[COLOUR_MAP](x)[:3])
                for x in np.linspace(0, 1, 9)
            ],
        },
    }


def clip_view(facet: Facet, copy: Preview | None, features: Sequence[str]) -> dict[str, Any]:
    """Return the values for a clip's template: its copies and features, or why there are none.

    Parameters
    ----------
    facet : Facet
    copy : Preview or None
        None if the clip has no samples.
    features : sequence of str
        Features whose values are shown below the player.
    """
    record = facet.record
    view: dict[str, Any] = {"label": facet.label or "the clip", "preview": copy, "error": ""}
    if record is None or copy is None:
        failed = facet.status == "failed"
        states = {"failed": "failed", "missing": "not made yet"}
        return view | {
            "error": str(record["error"]) if record is not None and failed else "",
            "state": states.get(facet.status, "no samples"),
        }
    length_s = round(record["duration_s"], 2)
    return view | {
        "width": PICTURE_WIDTH,
        "height": PICTURE_HEIGHT,
        "length_s": length_s,
        "length": f"{length_s:g} s",
        "notes": _notes(record),
        "features": [
            (FEATURES[name].label, value_with_unit(record[name], FEATURES[name].unit))
            for name in features
        ],
    }


def _grid_view(
    grid: FacetGrid, copies: Mapping[str, Preview], features: Sequence[str]
) -> dict[str, Any]:
    """Return the values for a grid's template: a table, or a list for a single swept field."""
    cells = [
        clip_view(facet, copies.get(facet.record["key"]) if facet.record else None, features)
        for facet in grid.facets
    ]
    view: dict[str, Any] = {"heading": grid.heading, "cells": cells, "rows": []}
    if grid.row_field is None or grid.column_field is None:
        return view
    axes = f"Listening grid: {grid.row_field} down, {grid.column_field} across"
    rows = zip(grid.row_labels, grid.row_values, strict=True)
    return view | {
        "name": ", ".join(filter(None, [axes, grid.heading])),
        "columns": [
            (grid.column_field, label, format_value(grid.column_field, value, shorten=None))
            for label, value in zip(grid.column_labels, grid.column_values, strict=True)
        ],
        "rows": [
            {
                "head": (
                    grid.row_field,
                    label,
                    format_value(grid.row_field, value, shorten=None),
                ),
                "cells": cells[row * grid.columns : (row + 1) * grid.columns],
            }
            for row, (label, value) in enumerate(rows)
        ],
    }


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Return the notes on a clip for listeners."""
    notes = ["silent"] if record["is_silent"] is True else []
    if record["peak_dbfs"] > 0:
        beyond = f"{record['peak_dbfs']:.1f} dB"
        notes.append(f"peaks {beyond} above full scale: played {beyond} quieter")
    return notes
