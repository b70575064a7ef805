"""The listening grid: for every clip its picture, its values and a player, as HTML.

It works in a notebook and in the report. Sounds and pictures are small files in `listening/` of the
run folder, beside the notebook and the page, and are named by relative links.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.atomic import write_atomically
from musicgen_lab.clip import Clip
from musicgen_lab.mel_pictures import (
    COLOUR_MAP,
    LEVEL_RANGE_DB,
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    MelPictures,
)
from musicgen_lab.panels import Page, Panel, format_value, pages

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.results import Results

LISTENING_FOLDER = "listening"
MP3_SAMPLE_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
STYLE_PATH = Path(__file__).parent / "report_template" / "listening.css"


def listening_grid(results: Results, *, level_range_db: float = LEVEL_RANGE_DB) -> HTML:
    """Show every clip of a run as a picture with a player, in the order of the sweep.

    Temperature goes down and cfg_coef across where they are swept, see
    `musicgen_lab.panels.pages`. The players play listening copies (MP3) at each clip's own level;
    a clip that goes beyond full scale is played quieter, and it says so by how much.

    Parameters
    ----------
    results : Results
    level_range_db : float > 0
        From the lightest colour of the pictures down to the darkest, in dB.

    Returns
    -------
    IPython.display.HTML
        Its links are relative to the run folder, so show it in a notebook or page that lies there.

    Raises
    ------
    RunFolderUnwritable
        When the listening copies cannot be written.
    """
    from IPython.display import HTML

    pictures = MelPictures(results, level_range_db=level_range_db)
    found = pages(results)
    parts = [f"<style>{STYLE_PATH.read_text(encoding='utf-8')}</style>", _legend(pictures)]
    for page in found:
        sources = {
            panel.record["key"]: _write_copies(results, panel.record["key"], pictures)
            for panel in page.panels
            if panel.record is not None and panel.status != "failed"
        }
        if page.heading:
            parts.append(f"<h3>{escape(page.heading)}</h3>")
        parts.append(_list(page, sources) if page.is_list else _table(page, sources))
    if not found:
        parts.append("<p>No clip has been made yet.</p>")
    return HTML(f'<div class="listening">{"".join(parts)}</div>')


def listening_copy(clip: Clip) -> tuple[bytes, str]:
    """Encode a clip for players: at its own level, or just so much quieter that it does not clip.

    Parameters
    ----------
    clip : Clip

    Returns
    -------
    content : bytes
    suffix : str
        ".mp3"; or ".wav", in 16 bits, where MP3 knows no such sample rate or number of channels.
    """
    import soundfile

    peak = float(np.max(np.abs(clip.samples), initial=0.0))
    samples = clip.samples / max(1.0, peak)
    is_mp3 = clip.sample_rate in MP3_SAMPLE_RATES_HZ and samples.shape[0] <= 2
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples.T,
        clip.sample_rate,
        format="MP3" if is_mp3 else "WAV",
        subtype="MPEG_LAYER_III" if is_mp3 else "PCM_16",
    )
    return buffer.getvalue(), ".mp3" if is_mp3 else ".wav"


def _write_copies(results: Results, key: str, pictures: MelPictures) -> str | None:
    """Write a clip's sound and picture, and return the sound's link; None where it has none."""
    if key not in pictures.by_key:
        return None
    folder = results.folder / LISTENING_FOLDER
    write_atomically(folder / f"{key}.png", pictures.png(key))
    for suffix in (".mp3", ".wav"):
        if (folder / f"{key}{suffix}").exists():  # a clip never changes, and neither does its copy
            return f"{LISTENING_FOLDER}/{key}{suffix}"
    content, suffix = listening_copy(results.clip(key))
    write_atomically(folder / f"{key}{suffix}", content)
    return f"{LISTENING_FOLDER}/{key}{suffix}"


def _legend(pictures: MelPictures) -> str:
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


def _table(page: Page, sources: Mapping[str, str | None]) -> str:
    """Return a grid page as a table, so that a screen reader tells each player's place."""
    assert page.row_field is not None and page.column_field is not None
    heads = "".join(
        f'<th scope="col">{_head(page.column_field, value)}</th>' for value in page.column_values
    )
    rows = [f"<tr><td></td>{heads}</tr>"]
    for row, value in enumerate(page.row_values):
        here = page.panels[row * page.columns : (row + 1) * page.columns]
        cells = "".join(f"<td>{_cell(panel, sources)}</td>" for panel in here)
        rows.append(f'<tr><th scope="row">{_head(page.row_field, value)}</th>{cells}</tr>')
    name = escape(f"Listening grid: {page.row_field} down, {page.column_field} across", quote=True)
    return (
        f'<div class="listening-scroll" role="region" aria-label="{name}" tabindex="0">'
        f'<table class="listening-grid" style="--columns: {page.columns}">{"".join(rows)}</table>'
        "</div>"
    )


def _head(name: str, value: Any) -> str:
    whole = escape(format_value(name, value, shorten=None), quote=True)
    return f'{escape(name)} <b title="{whole}">{escape(format_value(name, value))}</b>'


def _list(page: Page, sources: Mapping[str, str | None]) -> str:
    items = "".join(f"<li>{_cell(panel, sources)}</li>" for panel in page.panels)
    return f'<ul class="listening-list">{items}</ul>'


def _cell(panel: Panel, sources: Mapping[str, str | None]) -> str:
    """Return one clip's picture, label and player, or what stands in its place."""
    label = escape(panel.label or "the clip", quote=True)
    caption = f"<figcaption>{label}"
    record = panel.record
    if record is None:
        return f'<figure class="missing"><div>not made yet</div>{caption}</figcaption></figure>'
    if panel.status == "failed":
        error = escape(str(record["error"]))
        return (
            f'<figure class="failed"><div>failed</div>{caption} <em>{error}</em></figcaption>'
            "</figure>"
        )
    source = sources[record["key"]]
    if source is None:
        return f'<figure class="missing"><div>no samples</div>{caption}</figcaption></figure>'
    notes = _notes(record)
    said = f" <em>{escape('; '.join(notes))}</em>" if notes else ""
    return (
        f'<figure><img src="{LISTENING_FOLDER}/{record["key"]}.png" loading="lazy" '
        f'width="{PICTURE_WIDTH}" height="{PICTURE_HEIGHT}" '
        f'alt="Mel spectrogram: {label}{escape("; " + "; ".join(notes)) if notes else ""}">'
        f'<audio controls preload="none" src="{source}" aria-label="Play {label}"></audio>'
        f"{caption}{said}</figcaption></figure>"
    )


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Return what a listener should know of a clip."""
    notes = ["silent"] if record["is_silent"] is True else []
    if record["peak_dbfs"] > 0:
        beyond = f"{record['peak_dbfs']:.1f} dB"
        notes.append(f"peaks {beyond} above full scale: played {beyond} quieter")
    return notes
