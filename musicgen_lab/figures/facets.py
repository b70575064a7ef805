"""Where each clip of a run stands in a grid of panels, for figures and for listening alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from musicgen_lab.request import SWEEP_ORDER

if TYPE_CHECKING:
    from musicgen_lab.results import Results

GRID_PANELS_MAX = 144
LIST_PANELS_MAX = 48
GRID_FILLED_MIN = 0.5
"""A grid with a smaller share of its places filled, as a random design has, becomes a list."""


@dataclass(frozen=True)
class Panel:
    """One clip's place, or the place of one that is not there.

    Attributes
    ----------
    row, column : int
        From the top and from the left, from 0.
    record : Mapping or None
        The clip's row of the frame; None where nothing was asked or nothing made yet.
    label : str
        The values that set it apart, such as "temperature 0.7, cfg_coef 3".
    """

    row: int
    column: int
    record: Mapping[str, Any] | None
    label: str

    @property
    def status(self) -> str:
        """What there is to show: "ok", "silent", "failed" or "missing"."""
        if self.record is None:
            return "missing"
        if self.record["status"] != "ok":
            return "failed"
        return "silent" if self.record["is_silent"] is True else "ok"


@dataclass(frozen=True)
class Page:
    """One grid or list of panels.

    Attributes
    ----------
    panels : tuple of Panel
        Row by row.
    rows, columns : int
        How many there are.
    row_field, column_field : str or None
        The request field that changes downwards and across; both None for a list, whose panels
        stand in order and say their values themselves.
    row_values, column_values : tuple
        Values of those fields, one for each row and column.
    fixed : Mapping
        Swept fields that have one value on the whole page.
    """

    panels: tuple[Panel, ...]
    rows: int
    columns: int
    row_field: str | None = None
    column_field: str | None = None
    row_values: tuple[Any, ...] = ()
    column_values: tuple[Any, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether the panels stand in order, each with its own values."""
        return self.row_field is None and self.column_field is None

    @property
    def heading(self) -> str:
        """What the whole page has in common, such as "seed 0"; empty where that is nothing."""
        return describe(self.fixed)


def pages(results: Results) -> list[Page]:
    """Lay out the clips of a run.

    Temperature goes down and cfg_coef across where they are swept; otherwise the next swept fields
    take their places, in the order of `SWEEP_ORDER`. Every combination of the fields that remain,
    seeds among them, is a page of its own. One swept field, a random design, and a grid of more
    than 144 places become lists.

    Parameters
    ----------
    results : Results

    Returns
    -------
    list of Page
        Empty for a run without clips.
    """
    records = records_of(results)
    if not records:
        return []
    down, across = axes_of(results.swept)
    if down is None or across is None or not worth_a_grid(records, down, across):
        return _list_pages(records, results.swept)
    rest = [name for name in results.swept if name not in (down, across)]
    return [
        _grid_page(records, down, across, dict(zip(rest, combination, strict=True)))
        for combination in itertools.product(*(values_of(records, name) for name in rest))
        if any(_matches(record, rest, combination) for record in records)
    ]


def records_of(results: Results) -> list[dict[str, Any]]:
    """Return the rows of a run's frame, each by column."""
    return [
        {str(name): value for name, value in record.items()}
        for record in results.frame.to_dict("records")
    ]


def values_of(records: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """Return a field's distinct values: numbers rising, texts in their order."""
    values = list(dict.fromkeys(record[name] for record in records))
    return values if any(isinstance(value, str) for value in values) else sorted(values)


def axes_of(swept: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the swept fields that go down and across; None where too few are swept."""
    down = "temperature" if "temperature" in swept else None
    across = "cfg_coef" if "cfg_coef" in swept else None
    others = [name for name in swept if name not in (down, across)]
    down = down or (others.pop(0) if others else None)
    across = across or (others.pop(0) if others else None)
    return down, across


def worth_a_grid(
    records: Sequence[Mapping[str, Any]], down: str | None, across: str | None
) -> bool:
    """Tell whether a grid of two fields is small enough to read, and more filled than empty."""
    names = [name for name in (down, across) if name is not None]
    places = math.prod(len(values_of(records, name)) for name in names)
    filled = len({tuple(record[name] for name in names) for record in records})
    return places <= GRID_PANELS_MAX and filled >= GRID_FILLED_MIN * places


def describe(fields: Mapping[str, Any]) -> str:
    """Say fields and their values in a line, such as "temperature 0.7, seed 0"."""
    return ", ".join(f"{name} {format_value(name, value)}" for name, value in fields.items())


def format_value(name: str, value: Any, *, shorten: int | None = 40) -> str:
    """Write a request field's value for people, with its unit and without needless digits."""
    if isinstance(value, str):
        too_long = shorten is not None and len(value) > shorten
        return f"{value[: shorten - 1].rstrip()}…" if too_long and shorten else value
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} s" if name == "duration" else text


def _matches(record: Mapping[str, Any], names: Sequence[str], values: Sequence[Any]) -> bool:
    return all(record[name] == value for name, value in zip(names, values, strict=True))


def _grid_page(
    records: Sequence[Mapping[str, Any]], down: str, across: str, fixed: dict[str, Any]
) -> Page:
    row_values, column_values = values_of(records, down), values_of(records, across)
    here = {
        (record[down], record[across]): record
        for record in records
        if _matches(record, list(fixed), list(fixed.values()))
    }
    panels = tuple(
        Panel(i, j, here.get((row, column)), describe({down: row, across: column} | fixed))
        for i, row in enumerate(row_values)
        for j, column in enumerate(column_values)
    )
    return Page(
        panels,
        rows=len(row_values),
        columns=len(column_values),
        row_field=down,
        column_field=across,
        row_values=tuple(row_values),
        column_values=tuple(column_values),
        fixed=fixed,
    )


def _list_pages(records: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> list[Page]:
    ranks = {
        name: {value: rank for rank, value in enumerate(values_of(records, name))}
        for name in SWEEP_ORDER
        if name in swept
    }
    ordered = sorted(
        records, key=lambda record: [rank[record[name]] for name, rank in ranks.items()]
    )
    return [
        _list_page(ordered[start : start + LIST_PANELS_MAX], list(ranks))
        for start in range(0, len(ordered), LIST_PANELS_MAX)
    ]


def _list_page(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Page:
    columns = len(records) if len(records) <= 4 else min((4, 3), key=lambda n: -len(records) % n)
    panels = tuple(
        Panel(i // columns, i % columns, record, describe({name: record[name] for name in names}))
        for i, record in enumerate(records)
    )
    return Page(panels, rows=math.ceil(len(records) / columns), columns=columns)
