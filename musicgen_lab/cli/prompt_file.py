"""`--prompt-file`: prompts one a line, or combinations of fields in a CSV or TSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from musicgen_lab.cli.options import number
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS, field_type, unknown_field


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises
    ------
    InvalidRequest
        When it cannot be read or has none.
    """
    prompts = [line.strip() for line in _read(path).splitlines() if line.strip()]
    if not prompts:
        raise InvalidRequest(f"{path} has no prompts; write one a line", field="prompt")
    return prompts


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file that are not empty, each with those of its cells that are not.

    Raises
    ------
    InvalidRequest
        When it cannot be read, a column is no field of a request or there twice, or a row has too
        many cells, or one of over 131,072 characters.
    """
    try:
        return _parse_rows(path, _read(path))
    except csv.Error as error:
        raise InvalidRequest(
            f"{path} is no CSV file: {error}; look for a double quote that is not closed"
        ) from None


def _parse_rows(path: Path, text: str) -> list[dict[str, Any]]:
    heading = text.lstrip().partition("\n")[0]
    delimiter = next((one for one in ",;\t" if one in heading), ",")  # as spreadsheets write it
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = [name.strip() for name in reader.fieldnames or ()]
    for name in names:
        if name not in REQUEST_FIELDS:
            raise unknown_field(name)
        if names.count(name) > 1:
            raise InvalidRequest(f"{path} has the column {name} twice; leave one out", field=name)
    reader.fieldnames = names
    rows = []
    for cells in reader:
        if None in cells:
            raise InvalidRequest(
                f"line {reader.line_num} of {path} has more than its {len(names)} columns; "
                "put a text with commas in double quotes"
            )
        row = {
            name: _value(name, text.strip())
            for name, text in cells.items()
            if text and text.strip()
        }
        if row:  # spreadsheets write rows of nothing but separators
            rows.append(row)
    return rows


def _value(name: str, text: str) -> Any:
    """Return a cell's value; what is none of its field's stays text, which the request rejects."""
    if field_type(name) is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    return text if field_type(name) is str else number(text)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 text") from error
    if not text.strip():
        raise InvalidRequest(f"{path} is empty")
    return text
