"""From a notebook that was run to the page that people pass on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from musicgen_lab.atomic import write_atomically
from musicgen_lab.listening_copies import LISTENING_FOLDER, check_embedded, data_uri

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGE = Path(__file__).parent


def write_page(
    notebook: NotebookNode, folder: Path, title: str, *, self_contained: bool = False
) -> Path:
    """Write `report.ipynb` and `report.html` of a notebook that was run in a folder.

    Parameters
    ----------
    notebook : NotebookNode
        With its outputs.
    folder : Path
    title : str
        For the browser's tab.
    self_contained : bool
        Put the sounds and pictures in `listening/` inside the page.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InvalidRequest
        When they are more than 32 MB. Nothing is written then.
    RunFolderUnwritable
        When the folder cannot be written.
    """
    notebook.metadata["title"] = title
    page = _to_html(notebook)
    if self_contained:
        page = _with_files_inside(page, folder)
    write_atomically(folder / "report.ipynb", _notebook_bytes(notebook))
    write_atomically(folder / "report.html", page.encode("utf-8"))
    return folder / "report.html"


def _to_html(notebook: NotebookNode) -> str:
    """Turn an executed notebook into a page without code that needs no network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="report_template",
        extra_template_basedirs=[str(PACKAGE)],
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
