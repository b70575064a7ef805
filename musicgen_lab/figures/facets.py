"""The layout of a run's clips in grids of facets, for figures and listening pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import FieldLabels, describe
from musicgen_lab.runs.run_table import RunTable, distinct_values

GRID_FACETS_MAX = 144
LIST_FACETS_MAX = 48
GRID_FILLED_MIN = 0.5
"""A grid with a smaller share of filled facets, such as that of a random design, becomes a list."""

Record = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Facet:
    """One panel of a grid.

    Attributes
    ----------
    row, column : int
        From the top and from the left, from 0.
    records : tuple of Mapping
        Rows of the table: one clip, or all seeds of a cell; empty if none has been made yet.
    label : str
        Its identifying values, such as "temperature 0.7, cfg_coef 3".
    """

    row: int
    column: int
    records: tuple[Record, ...]
    label: str

    @property
    def record(self) -> Record | None:
        """The clip's row of the table, if the facet shows one clip."""
        return self.records[0] if self.records else None

    @property
    def status(self) -> str:
        """The state of its clips: "ok", "silent", "failed" or "missing"."""
        finished = [record for record in self.records if record["status"] == "ok"]
        if not finished:
            return "failed" if self.records else "missing"
        return "silent" if all(record["is_silent"] is True for record in finished) else "ok"


@dataclass(frozen=True)
class FacetGrid:
    """One grid or list of facets.

    Attributes
    ----------
    facets : tuple of Facet
        Row by row.
    rows, columns : int
        How many there are.
    row_field, column_field : str or None
        The request field that changes downwards and across; None where nothing does. Both are None
        for a list, whose facets stand in order and have their values as labels.
    row_values, column_values : tuple
        Values of those fields, one for each row and column.
    row_labels, column_labels : tuple of str
        The same as they are written.
    fixed : Mapping
        Swept fields that have one value in the whole grid.
    heading : str
        What the whole grid has in common, such as "seed 0"; may be empty.
    """

    facets: tuple[Facet, ...]
    rows: int
    columns: int
    row_field: str | None = None
    column_field: str | None = None
    row_values: tuple[Any, ...] = ()
    column_values: tuple[Any, ...] = ()
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    heading: str = ""

    @property
    def is_list(self) -> bool:
        """Whether it is a list, in which each facet is labelled with its values."""
        return self.row_field is None and self.column_field is None


def clip_grids(table: RunTable) -> list[FacetGrid]:
    """Lay out the clips of a run, one per facet.

    Temperature goes down and cfg_coef across where they are swept; otherwise the next swept fields
    in the order of `SWEEP_ORDER` do. Every combination of the remaining fields, including seeds,
    has its own grid. One swept field, a random design, and a grid of more than 144 facets
    become lists.

    Returns
    -------
    list of FacetGrid
        Empty for a run without clips.
    """
    if not table.records:
        return []
    down, across = _axes(table.swept)
    if down is None or across is None or not _is_worth_a_grid(table.records, down, across):
        return _lists(table)
    return [grid for grid in _grids(table, table.swept, down, across) if _is_filled(grid)]


def cell_grids(table: RunTable) -> list[FacetGrid]:
    """Lay out the cells of a run, with all seeds of a cell in one facet.

    As `clip_grids`, except that one swept field goes across.

    Returns
    -------
    list of FacetGrid
        Empty for a run without clips, and where they form no grid, as in a random design.
    """
    down, across = _axes(table.parameters)
    if across is None:
        down, across = None, down
    if not table.records or not _is_worth_a_grid(table.records, down, across):
        return []
    return _grids(table, table.parameters, down, across)


def matching(grids: Sequence[tuple[Mapping[str, Any], T]], fixed: Mapping[str, Any]) -> T:
    """Return the first of several grids whose fixed fields have the given values.

    Raises
    ------
    InvalidRequest
        When there is none.
    """
    for values, grid in grids:
        if all(values.get(name) == value for name, value in fixed.items()):
            return grid
    choices = " or ".join(describe(values) for values, _ in grids if values) or "one grid only"
    raise InvalidRequest(f"no grid has {describe(fixed)}; there is {choices}")


def _axes(swept: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the swept fields for rows and columns; None if too few are swept."""
    down = "temperature" if "temperature" in swept else None
    across = "cfg_coef" if "cfg_coef" in swept else None
    others = [name for name in swept if name not in (down, across)]
    down = down or (others.pop(0) if others else None)
    across = across or (others.pop(0) if others else None)
    return down, across


def _is_worth_a_grid(records: tuple[Record, ...], down: str | None, across: str | None) -> bool:
    """Return whether a grid of two fields is small enough to read, and mostly filled."""
    names = [name for name in (down, across) if name is not None]
    size = math.prod(len(distinct_values(records, name)) for name in names)
    filled = len({tuple(record[name] for name in names) for record in records})
    return size <= GRID_FACETS_MAX and filled >= GRID_FILLED_MIN * size


def _is_filled(grid: FacetGrid) -> bool:
    return any(facet.records for facet in grid.facets)


def _grids(
    table: RunTable, fields: Sequence[str], down: str | None, across: str | None
) -> list[FacetGrid]:
    """Lay out one grid for every combination of the fields that are neither down nor across."""
    axes = [name for name in (down, across) if name is not None]
    rest = [name for name in fields if name not in axes]
    names = [*axes, *rest]
    by_values: dict[tuple[Any, ...], list[Record]] = {}
    for record in table.records:
        by_values.setdefault(tuple(record[name] for name in names), []).append(record)
    row_values = table.values(down) if down else [None]
    column_values = table.values(across) if across else [None]
    grids = []
    for combination in itertools.product(*(table.values(name) for name in rest)):
        fixed = dict(zip(rest, combination, strict=True))
        facets = []
        for (i, row), (j, column) in itertools.product(
            enumerate(row_values), enumerate(column_values)
        ):
            axis_values = {name: v for name, v in ((down, row), (across, column)) if name}
            values = axis_values | fixed
            records = tuple(by_values.get(tuple(values.values()), ()))
            facets.append(Facet(i, j, records, table.labels.describe(values)))
        grids.append(
            FacetGrid(
                tuple(facets),
                rows=len(row_values),
                columns=len(column_values),
                row_field=down,
                column_field=across,
                row_values=tuple(row_values),
                column_values=tuple(column_values),
                row_labels=_labels(table.labels, down, row_values),
                column_labels=_labels(table.labels, across, column_values),
                fixed=fixed,
                heading=table.labels.describe(fixed),
            )
        )
    return grids


def _labels(labels: FieldLabels, name: str | None, values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(labels.value(name, value) for value in values) if name else ("",)


def _lists(table: RunTable) -> list[FacetGrid]:
    ranks = {
        name: {value: rank for rank, value in enumerate(table.values(name))} for name in table.swept
    }
    ordered = sorted(
        table.records, key=lambda record: [rank[record[name]] for name, rank in ranks.items()]
    )
    return [
        _list(ordered[start : start + LIST_FACETS_MAX], list(ranks), table.labels)
        for start in range(0, len(ordered), LIST_FACETS_MAX)
    ]


def _list(records: Sequence[Record], names: Sequence[str], labels: FieldLabels) -> FacetGrid:
    columns = len(records) if len(records) <= 4 else min((4, 3), key=lambda n: -len(records) % n)
    facets = tuple(
        Facet(
            i // columns,
            i % columns,
            (record,),
            labels.describe({name: record[name] for name in names}),
        )
        for i, record in enumerate(records)
    )
    return FacetGrid(facets, rows=math.ceil(len(records) / columns), columns=columns)
