"""Export of an executed notebook as a page to share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from musicgen_lab.errors import InvalidRequest, RunFolderError
from musicgen_lab.listening.previews import LISTENING_FOLDER, check_embedded
from musicgen_lab.player import base_style
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.templating import PACKAGE, data_uri

if TYPE_CHECKING:
    from nbformat import NotebookNode

FORMATS = ("html", "ipynb")
"""The formats of a report: a page to share, and its executed notebook."""

SELF_CONTAINED_MB_MAX = 20
"""Up to this size, a page contains its audio and pictures by default."""

LINK = re.compile(rf'(?P<attribute>src|data-matched)="(?P<path>{LISTENING_FOLDER}/[^"]+)"')


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats to write, without duplicates and the page first.

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
    self_contained: bool | None = None,
    formats: Sequence[str] = FORMATS,
) -> Path:
    """Write `report.html` and `report.ipynb` for an executed notebook.

    Parameters
    ----------
    notebook : NotebookNode
        With its outputs.
    folder : Path
    title : str
        For the browser's tab.
    self_contained : bool, optional
        Embed the audio and pictures in `listening/` in the page. By default they are embedded if
        the page then has at most 20 MB.
    formats : sequence of str
        Which of the two to write, of `FORMATS`; the other is left unchanged.

    Returns
    -------
    Path
        Of the page, or of the notebook if no page is written.

    Raises
    ------
    InvalidRequest
        When the audio and pictures are more than 32 MB. Nothing is written then.
    RunFolderUnwritable
        When the folder cannot be written.
    """
    notebook.metadata["title"] = title
    contents = {}
    if "html" in formats:
        page = _to_html(notebook)
        size = len(page) + sum(path.stat().st_size * 4 // 3 for _, path in _files(page, folder))
        if self_contained is None:
            self_contained = size <= SELF_CONTAINED_MB_MAX * 1_000_000
        if self_contained:
            check_embedded(size, "leave out --self-contained")
            page = _with_files_inside(page, folder)
        contents["html"] = page.encode("utf-8")
    if "ipynb" in formats:
        contents["ipynb"] = _notebook_bytes(notebook)
    for suffix in reversed(contents):  # the page last: where it is new, all is
        write_atomically(folder / f"report.{suffix}", contents[suffix])
    return folder / f"report.{next(iter(contents))}"


def _to_html(notebook: NotebookNode) -> str:
    """Convert an executed notebook to a page without code that needs no network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=[str(PACKAGE / "report" / "templates")],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    page, _ = exporter.from_notebook_node(notebook, {"base_style": base_style()})
    return str(page)


def _files(page: str, folder: Path) -> Iterator[tuple[re.Match[str], Path]]:
    """Yield every link of a page to audio or a picture, with the file it points to.

    Raises
    ------
    RunFolderError
        When a file is outside the folder: a private file must not get onto the page.
    """
    listening = (folder / LISTENING_FOLDER).resolve()
    for link in LINK.finditer(page):
        path = (folder / unquote(link["path"])).resolve()
        if path.parent != listening or not listening.is_relative_to(folder.resolve()):
            raise RunFolderError(f"{link['path']} leads out of {folder}; delete that link")
        yield link, path


def _with_files_inside(page: str, folder: Path) -> str:
    """Replace links to audio and pictures by data URIs, and other links by their text."""
    data = {
        link.group(): f'{link["attribute"]}="{data_uri(path.read_bytes(), path.suffix)}"'
        for link, path in _files(page, folder)
    }
    page = LINK.sub(lambda link: data[link.group()], page)
    return re.sub(r'<a href="(?:clips/|results\.parquet)[^"]*">([^<]*)</a>', r"\1", page)


def _notebook_bytes(notebook: NotebookNode) -> bytes:
    import nbformat

    return f"{nbformat.writes(notebook)}\n".encode()
