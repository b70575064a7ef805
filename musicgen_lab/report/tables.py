"""The tables of a report: all clips, and the definitions of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import NAMED_FEATURES, chosen_features
from musicgen_lab.fields import SWEEP_ORDER
from musicgen_lab.formatting import value
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.run_features import with_run_features
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML


def clip_table(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Return a table with one row per clip: swept fields, notes, features, and a link to its WAV.

    On a page with the report's script, a click on a column's header sorts by it.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The features to show; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
        Its links are relative to the run folder.

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    names = chosen_features(features)
    table = with_run_features(table, names)
    records = table.records
    shown = [name for name in SWEEP_ORDER if name in table.swept or name == "seed"]
    notes = [_note(record) for record in records]
    columns = [
        _column(name, "", "text" if records and isinstance(records[0][name], str) else "number")
        for name in shown
    ]
    columns += [_column("Note", "", "text note")] if any(notes) else []
    columns += [_column(NAMED_FEATURES[name].label, NAMED_FEATURES[name].unit) for name in names]
    rows = []
    for record, note in zip(records, notes, strict=True):
        cells = [_cell(table.labels.value(name, record[name]), record[name]) for name in shown]
        cells += [_cell(note, note)] if any(notes) else []
        cells += [_cell(value(record[name]), record[name]) for name in names]
        path = record["path"] if record["status"] == "ok" else ""
        rows.append({"cells": cells, "path": path, "key": record["key"][:8]})
    return show("report/clip_table.html.j2", columns=columns, rows=rows)


def feature_definitions(features: Sequence[str] | None = None) -> HTML:
    """Return how each feature is measured, and its unit.

    Parameters
    ----------
    features : sequence of str, optional
        As for `clip_table`.
    """
    chosen = [NAMED_FEATURES[name] for name in chosen_features(features)]
    return show("report/definitions.html.j2", features=chosen)


def _note(record: Mapping[str, Any]) -> str:
    """Return the notes on a clip, such as that it failed or is silent."""
    if record["status"] != "ok":
        times = f" (tried {record['attempts']} times)" if record["attempts"] > 1 else ""
        return f"failed: {record['error']}{times}"
    return "silent" if record["is_silent"] is True else ""


def _column(label: str, unit: str, kind: str = "number") -> dict[str, str]:
    return {"label": label, "unit": unit, "kind": kind}


def _cell(text: str, sort_by: Any) -> dict[str, str]:
    """Return a cell's text and its sort key: the unrounded number; empty if unknown."""
    is_known = sort_by is not None and sort_by == sort_by
    return {"text": text, "sort_by": str(sort_by) if is_known else ""}
