"""The tables of a report: every clip, and what its numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import FEATURES, chosen_features
from musicgen_lab.formatting import format_value, value
from musicgen_lab.request import SWEEP_ORDER
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    from IPython.display import HTML


def clip_table(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Show one row per clip: what sets it apart, its features, and its sound as it was made.

    A click on a column's head sorts by it, on a page with the report's script.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        Which to show; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
        Its links are relative to the run folder.

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    from IPython.display import HTML

    names = chosen_features(features)
    records = table.records
    shown = [name for name in SWEEP_ORDER if name in table.swept or name == "seed"]
    notes = [_note(record) for record in records]
    heads = [_th(name, "", _kind(records[0][name]) if records else "number") for name in shown]
    heads += [_th(FEATURES[name].label, FEATURES[name].unit, "number") for name in names]
    heads += [_th("Note", "", "text")] if any(notes) else []
    heads += [_th("Made in", "s", "number")]
    heads += ['<th scope="col" class="link">Clip<small>32-bit float WAV</small></th>']
    rows = []
    for record, note in zip(records, notes, strict=True):
        cells = [
            _td(format_value(name, record[name]), record[name], _kind(record[name]))
            for name in shown
        ]
        cells += [_td(value(record[name]), record[name], "number") for name in names]
        cells += [_td(note, note, "text note")] if any(notes) else []
        cells.append(_td(value(record["elapsed_s"]), record["elapsed_s"], "number"))
        link = f'<a href="{record["path"]}">{record["key"][:8]}</a>'
        cells.append(f"<td>{link if record['status'] == 'ok' else '–'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(
        '<div class="scroll" role="region" aria-label="Every clip" tabindex="0">'
        '<table class="clips sortable"><caption>One row per clip. The heads sort.</caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def feature_definitions(features: Sequence[str] | None = None) -> HTML:
    """Say how each feature is measured, and in which unit.

    Parameters
    ----------
    features : sequence of str, optional
        As for `clip_table`.
    """
    from IPython.display import HTML

    entries = "".join(
        f"<div><dt>{escape(feature.label)} <small>{escape(feature.unit)}</small></dt>"
        f"<dd>{escape(feature.description)}</dd></div>"
        for feature in (FEATURES[name] for name in chosen_features(features))
    )
    return HTML(f'<dl class="definitions">{entries}</dl>')


def _note(record: Mapping[str, Any]) -> str:
    """Say what a reader should know of a clip before its numbers."""
    if record["status"] != "ok":
        times = f" (tried {record['attempts']} times)" if record["attempts"] > 1 else ""
        return f"failed: {record['error']}{times}"
    return "silent" if record["is_silent"] is True else ""


def _kind(given: Any) -> str:
    return "text" if isinstance(given, str) else "number"


def _th(label: str, unit: str, kind: str) -> str:
    small = f"<small>{escape(unit)}</small>" if unit else ""
    return (
        f'<th scope="col" class="{kind}" aria-sort="none">'
        f'<button type="button"><span>{escape(label)}</span>{small}</button></th>'
    )


def _td(text: str, sort_by: Any, kind: str) -> str:
    """Return a cell with what it is sorted by: unrounded numbers; nothing where it is unknown."""
    by = "" if sort_by is None or sort_by != sort_by else str(sort_by)
    return f'<td class="{kind}" data-sort="{escape(by, quote=True)}">{escape(text)}</td>'
