"""The parts of a report that are words and tables, as HTML for a notebook."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.panels import format_value, pages, records_of, values_of
from musicgen_lab.request import SWEEP_ORDER, GenerationRequest

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.drawing import Drawing
    from musicgen_lab.results import Results

FIGURES_MAX = 6
TITLE_CHARACTERS_MAX = 120
PROMPTS_SHOWN = 12


def heading(results: Results, title: str = "") -> HTML:
    """Say what was asked of a run and what came of it.

    Parameters
    ----------
    results : Results
    title : str
        The heading; the prompt where it is empty and there is only one.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in _facts(results)
    )
    said = escape(report_title(results.frame["prompt"], title))
    return HTML(
        f"<header><h1>{said}</h1>"
        f'<p class="lead">{escape(_lead(results))}</p></header><dl class="facts">{facts}</dl>'
    )


def report_title(prompts: Iterable[str], title: str = "") -> str:
    """Return a report's heading: the title given, or else the prompt in quotes."""
    distinct = list(dict.fromkeys(prompts))
    if title:
        return title
    if len(distinct) != 1:
        return f"A sweep over {len(distinct)} prompts"
    return f"“{format_value('prompt', distinct[0], shorten=TITLE_CHARACTERS_MAX)}”"


def spectrogram_figures(results: Results, *, level_range_db: float) -> HTML:
    """Show the spectrogram grid of every page, with axes, on light and on dark paper.

    At most six are drawn; the text says where there are more.

    Parameters
    ----------
    results : Results
    level_range_db : float > 0
        From the lightest colour down to the darkest, in dB.

    Returns
    -------
    IPython.display.HTML
        The pictures are inside it.
    """
    from IPython.display import HTML

    from musicgen_lab.mel_pictures import MelPictures
    from musicgen_lab.page_figure import draw_page

    found = pages(results)
    pictures = MelPictures(results, level_range_db=level_range_db)
    parts = []
    for page in found[:FIGURES_MAX]:
        parts.append(figure_block(draw_page(page, results, pictures), "Spectrogram grid"))
    if len(found) > FIGURES_MAX:
        parts.append(
            f"<p>The first {FIGURES_MAX} of {len(found)} grids. "
            "<code>plots.spectrogram_grid</code> draws the others.</p>"
        )
    return HTML("".join(parts) or "<p>No clip has been made yet.</p>")


def figure_block(drawing: Drawing, name: str) -> str:
    """Return a drawing as HTML that scrolls by itself where the window is narrow."""
    return (
        f'<div class="figure" role="region" aria-label="{escape(name, quote=True)}" tabindex="0">'
        f"{drawing.picture()}</div>"
    )


def clip_table(results: Results) -> HTML:
    """Show one row per clip: what sets it apart, its features, and its sound as it was made.

    Parameters
    ----------
    results : Results

    Returns
    -------
    IPython.display.HTML
        Its links are relative to the run folder.
    """
    from IPython.display import HTML

    from musicgen_lab.analysis.features import FEATURES

    frame = results.frame
    shown = [name for name in SWEEP_ORDER if name in results.swept or name == "seed"]
    heads = [_th(name, "", _kind(frame[name].iloc[0] if len(frame) else 0)) for name in shown]
    heads += [_th(feature.label, feature.unit, "number") for feature in FEATURES.values()]
    heads += [_th("Made in", "s", "number"), _th("Clip", "32-bit float WAV", "link")]
    rows = []
    for record in records_of(results):
        cells = [_td(format_value(name, record[name]), _kind(record[name])) for name in shown]
        if record["status"] == "ok":
            cells += [_td(_number(record[name]), "number") for name in FEATURES]
        else:
            cells.append(f'<td class="text" colspan="{len(FEATURES)}">{_error(record)}</td>')
        cells.append(_td(_number(record["elapsed_s"]), "number"))
        link = f'<a href="{record["path"]}">{record["key"][:8]}</a>'
        cells.append(f"<td>{link if record['status'] == 'ok' else '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(
        '<div class="scroll" role="region" aria-label="Every clip" tabindex="0">'
        f'<table class="clips"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def feature_definitions() -> HTML:
    """Say how each feature is measured, and in which unit."""
    from IPython.display import HTML

    from musicgen_lab.analysis.features import FEATURES

    entries = "".join(
        f"<div><dt>{escape(feature.label)} <small>{escape(feature.unit)}</small></dt>"
        f"<dd>{escape(feature.description)}</dd></div>"
        for feature in FEATURES.values()
    )
    return HTML(f'<dl class="definitions">{entries}</dl>')


def _lead(results: Results) -> str:
    frame = results.frame
    failed = int((frame["status"] == "failed").sum())
    made = len(frame) - failed
    seconds = float(frame["duration_s"].sum())
    parts = [f"{made} clip{'s' if made != 1 else ''}, {seconds:.4g} s of audio"]
    silent = int(frame["is_silent"].fillna(False).astype(bool).sum())
    parts += [f"{silent} silent"] if silent else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{results.missing} not made yet"] if results.missing else []
    return "; ".join(parts) + "."


def _facts(results: Results) -> Iterable[tuple[str, str]]:
    """Yield what was asked and who made it, as pairs of plain text and HTML."""
    records = records_of(results)
    inert = _inert_everywhere(records)
    for name in SWEEP_ORDER if records else ():
        values = values_of(records, name)
        texts = [format_value(name, value, shorten=None) for value in values[:PROMPTS_SHOWN]]
        if len(values) > PROMPTS_SHOWN:
            texts = [texts[0], "…", format_value(name, values[-1], shorten=None)]
        separator = "<br>" if name == "prompt" else ", "
        said = separator.join(escape(text) for text in texts)
        if name in inert:
            said += f" <small>(does nothing: {escape(inert[name])})</small>"
        elif len(values) > 1 and name != "prompt":
            said += f" <small>({len(values)} values)</small>"
        yield name, said
    makers = [
        f"{record['engine']} on {record['device']} in {record['dtype']}"
        for record in records
        if record["status"] == "ok"
    ]
    yield "made by", "<br>".join(escape(maker) for maker in dict.fromkeys(makers)) or "nobody yet"
    yield (
        "asked",
        "<br>".join(
            f"{_date(sweep['asked_at'])} <small>with MusicGen Lab "
            f"{escape(str(sweep['lab_version']))}</small>"
            for sweep in results.sweeps
        ),
    )
    yield "time to make", f"{results.frame['elapsed_s'].sum():,.3g} s in all"


def _inert_everywhere(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the fields that act on none of the clips, with the reason."""
    common: dict[str, str] | None = None
    for record in records:
        try:
            here = GenerationRequest(**{name: record[name] for name in SWEEP_ORDER}).inert_fields()
        except InvalidRequest:
            return {}  # made under other limits; what acted then is not for these rules to say
        common = here if common is None else {k: v for k, v in common.items() if k in here}
    return common or {}


def _date(iso: str) -> str:
    return escape(f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M %Z}")


def _error(record: Mapping[str, Any]) -> str:
    times = f" (tried {record['attempts']} times)" if record["attempts"] > 1 else ""
    return f"failed: {escape(str(record['error']))}{times}"


def _number(value: Any) -> str:
    if value is True or value is False:
        return "yes" if value else "no"
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace("-", "−")


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "number"


def _th(label: str, unit: str, kind: str) -> str:
    return f'<th scope="col" class="{kind}">{escape(label)}<small>{escape(unit)}</small></th>'


def _td(text: str, kind: str) -> str:
    return f'<td class="{kind}">{escape(text)}</td>'
