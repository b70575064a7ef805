"""One feature in every cell of a grid: its mean over seeds, its spread, and what is not there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.facets import axes_of, describe, records_of, values_of, worth_a_grid

if TYPE_CHECKING:
    from musicgen_lab.results import Results


@dataclass(frozen=True)
class Cell:
    """A feature over the seeds of one cell.

    Attributes
    ----------
    row, column : int
        From the top and from the left, from 0.
    label : str
        The cell's values, such as "temperature 0.7, cfg_coef 3".
    mean : float
        NaN where no clip has a value.
    sd : float
        Standard deviation over seeds; NaN for fewer than two values.
    n, failed, silent : int
        Clips with a value, clips that failed, and silent ones among the finished.
    """

    row: int
    column: int
    label: str
    mean: float
    sd: float
    n: int
    failed: int
    silent: int

    @property
    def status(self) -> str:
        """What there is to show: "ok", "silent", "failed" or "missing"."""
        if self.n:
            return "ok"
        if self.failed:
            return "failed"
        if self.silent:
            return "silent"
        return "missing"


@dataclass(frozen=True)
class CellPage:
    """The cells of a grid of two swept fields; the others have one value.

    Attributes
    ----------
    cells : tuple of Cell
        Row by row.
    row_field, column_field : str or None
        What changes downwards and across; None where nothing does.
    row_values, column_values : tuple
        Their values; one None where there is no field.
    fixed : Mapping
        The other swept fields, each with its value here.
    """

    cells: tuple[Cell, ...]
    row_field: str | None
    column_field: str | None
    row_values: tuple[Any, ...]
    column_values: tuple[Any, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)


def cell_pages(results: Results, feature: str) -> list[CellPage]:
    """Lay out a feature's cells; the seeds of a cell are put together.

    Temperature goes down and cfg_coef across where they are swept, as in `panels.pages`; one swept
    field goes across. Every combination of the fields that remain is a page of its own.

    Parameters
    ----------
    results : Results
    feature : str
        One of `musicgen_lab.analysis.features.FEATURES`.

    Returns
    -------
    list of CellPage
        Empty for a run without clips, and for one that is no grid, such as a random design.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or it is no number.
    """
    from musicgen_lab.analysis.features import FEATURES, NUMBERS

    if feature not in FEATURES:
        raise InvalidRequest(
            f"unknown feature {feature!r}; the features are {', '.join(FEATURES)}", field=feature
        )
    if feature not in NUMBERS:
        raise InvalidRequest(
            f"{feature} is no number, so that it has no mean; take one of {', '.join(NUMBERS)}",
            field=feature,
        )
    records = records_of(results)
    swept = list(results.parameters)
    down, across = axes_of(swept)
    if across is None:
        down, across = None, down
    if not records or not worth_a_grid(records, down, across):
        return []
    rest = [name for name in swept if name not in (down, across)]
    return [
        _page(records, feature, down, across, dict(zip(rest, combination, strict=True)))
        for combination in itertools.product(*(values_of(records, name) for name in rest))
    ]


def _page(
    records: Sequence[Mapping[str, Any]],
    feature: str,
    down: str | None,
    across: str | None,
    fixed: dict[str, Any],
) -> CellPage:
    rows = values_of(records, down) if down else [None]
    columns = values_of(records, across) if across else [None]
    cells = []
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        place = {name: value for name, value in ((down, row), (across, column)) if name} | fixed
        here = [r for r in records if all(r[name] == value for name, value in place.items())]
        cells.append(_cell(i, j, describe(place), here, feature))
    return CellPage(tuple(cells), down, across, tuple(rows), tuple(columns), fixed)


def _cell(
    row: int, column: int, label: str, records: Sequence[Mapping[str, Any]], feature: str
) -> Cell:
    values = [_value(record, feature) for record in records if record["status"] == "ok"]
    known = [value for value in values if math.isfinite(value)]
    n = len(known)
    mean = sum(known) / n if n else math.nan
    sd = math.sqrt(sum((v - mean) ** 2 for v in known) / (n - 1)) if n > 1 else math.nan
    return Cell(
        row,
        column,
        label,
        mean=mean,
        sd=sd,
        n=n,
        failed=sum(record["status"] == "failed" for record in records),
        silent=sum(record["is_silent"] is True for record in records),
    )


def _value(record: Mapping[str, Any], feature: str) -> float:
    value = record[feature]
    return float(value) if isinstance(value, bool | int | float) else math.nan
