"""From a notebook that was run to the page that people pass on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.listening.previews import LISTENING_FOLDER, check_embedded, data_uri
from musicgen_lab.report.html import TEMPLATES
from musicgen_lab.runs.atomic_io import write_atomically

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMATS = ("html", "ipynb")
"""What a report can be kept as: a page to pass on, and the notebook that was run for it."""


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats to keep, each once and the page first.

    Parameters
    ----------
    formats : sequence of str
        Of `FORMATS`.

    Raises
    ------
    InvalidRequest
        When one is unknown, or none is given.
    """
    for name in formats:
        if name not in FORMATS:
            way_out = "; for a PDF, print the page from a browser" if name == "pdf" else ""
            raise InvalidRequest(
                f"unknown format {name!r}; the formats are {' and '.join(FORMATS)}{way_out}",
                field="formats",
                value=name,
            )
    if not formats:
        raise InvalidRequest(f"give at least one format: {' or '.join(FORMATS)}", field="formats")
    return tuple(name for name in FORMATS if name in formats)


def write_page(
    notebook: NotebookNode,
    folder: Path,
    title: str,
    *,
    self_contained: bool = False,
    formats: Sequence[str] = FORMATS,
) -> Path:
    """Write `report.html` and `report.ipynb` of a notebook that was run in a folder.

    Parameters
    ----------
    notebook : NotebookNode
        With its outputs.
    folder : Path
    title : str
        For the browser's tab.
    self_contained : bool
        Put the sounds and pictures in `listening/` inside the page.
    formats : sequence of str
        Which of the two to write, of `FORMATS`; the other stays as it is.

    Returns
    -------
    Path
        Of the page, or of the notebook where no page is written.

    Raises
    ------
    InvalidRequest
        When the sounds and pictures are more than 32 MB. Nothing is written then.
    RunFolderUnwritable
        When the folder cannot be written.
    """
    notebook.metadata["title"] = title
    contents = {}
    if "html" in formats:
        page = _to_html(notebook)
        page = _with_files_inside(page, folder) if self_contained else page
        contents["html"] = page.encode("utf-8")
    if "ipynb" in formats:
        contents["ipynb"] = _notebook_bytes(notebook)
    for suffix in reversed(contents):  # the page last: where it is new, all is
        write_atomically(folder / f"report.{suffix}", contents[suffix])
    return folder / f"report.{next(iter(contents))}"


def _to_html(notebook: NotebookNode) -> str:
    """Turn an executed notebook into a page without code that needs no network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(notebook)
    return str(page)


def _with_files_inside(page: str, folder: Path) -> str:
    """Replace links to sounds and pictures by what they lead to, and other links by their text."""
    size = len(page)

    def embed(link: re.Match[str]) -> str:
        nonlocal size
        path = folder / unquote(link["path"])
        size += path.stat().st_size * 4 // 3
        check_embedded(size, "leave out --self-contained")
        return f'{link["attribute"]}="{data_uri(path.read_bytes(), path.suffix)}"'

    page = re.sub(r'<a href="(?:clips/|results\.parquet)[^"]*">([^<]*)</a>', r"\1", page)
    return re.sub(
        rf'(?P<attribute>src|data-matched)="(?P<path>{LISTENING_FOLDER}/[^"]+)"', embed, page
    )


def _notebook_bytes(notebook: NotebookNode) -> bytes:
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()
