"""Pages of the documentation that are made while it is built: the notebooks, run, and the HTTP API.

`DOCS_RUN_NOTEBOOKS=0` shows the notebooks without outputs, which is faster while writing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nbformat
from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

from musicgen_lab.report.notebook import run_notebook
from musicgen_lab.web.app import create_app
from musicgen_lab.web.openapi import document
from musicgen_lab.web.settings import WebSettings

ROOT = Path(__file__).parents[1]
MODEL = "facebook/musicgen-large@REVISION"  # that of the documented deployment
HTTP_TEMPLATE = Path(__file__).with_name("http_reference.md.j2")
RUN_HERE = (
    "explore",
    "temperature_cfg",
    "blind_listening",
)  # the other one needs a deployment on Modal
WIDGET = "application/vnd.jupyter.widget-view+json"  # progress bars
outputs: dict[str, str] = {}  # placeholder in a page's Markdown -> HTML


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those whose source is at the top of the repository."""
    pages = {"reference/http.md": http_reference()}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        pages[name.lower()] = (ROOT / name).read_text(encoding="utf-8")
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    with ThreadPoolExecutor() as pool:
        for path, notebook in zip(paths, pool.map(run, paths), strict=True):
            pages[f"notebooks/{path.stem}.md"] = "\n\n".join(blocks(notebook, path.stem))
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the outputs of notebooks in, which Markdown must not touch."""
    for placeholder, output in outputs.items():
        html = html.replace(placeholder, output)
    return html


def run(path: Path) -> NotebookNode:
    """Run a notebook on the embedded model, in a folder that is deleted afterwards."""
    if path.stem not in RUN_HERE or os.environ.get("DOCS_RUN_NOTEBOOKS") == "0":
        return nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as name:
        folders = {"run_folder": Path(name) / "runs" / path.stem}
        notebook = run_notebook(path, Path(name), {}, folders=folders)
    return nbformat.reads(nbformat.writes(notebook).replace(name, ".."), as_version=4)


def blocks(notebook: NotebookNode, name: str) -> Iterator[str]:
    """Yield the Markdown of a notebook's cells, with a placeholder for each output."""
    if name not in RUN_HERE:
        yield "!!! note\n\n    Shown without outputs, as it needs a deployment on Modal."
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        yield cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        for output in cell.get("outputs", []):
            placeholder = f"<!-- output {len(outputs)} of {name} -->"
            outputs[placeholder] = f'<div class="output">{as_html(output)}</div>'
            yield placeholder


def as_html(output: NotebookNode) -> str:
    """Return an output of a cell as HTML; nothing for progress bars and log lines."""
    if output.output_type == "stream":
        return (
            f'<pre style="white-space: pre-wrap">{escape(output.text)}</pre>'
            if output.name == "stdout"
            else ""
        )
    data = output.data
    if WIDGET in data:
        return ""
    if "text/html" in data:
        return str(data["text/html"]).replace('class="dataframe"', "")  # styled like all tables
    if "image/svg+xml" in data:
        return str(data["image/svg+xml"])
    return f'<pre style="white-space: pre-wrap">{escape(data["text/plain"])}</pre>'


def http_reference() -> str:
    """Write the service's OpenAPI document as Markdown."""
    nobody = cast(Any, SimpleNamespace(submit=None, progress=None))  # routes, no requests
    settings = WebSettings()
    app = create_app(nobody, settings=settings, served=[MODEL])
    template = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    api = document(app, [MODEL], settings)
    return template.from_string(HTTP_TEMPLATE.read_text(encoding="utf-8")).render(
        paths=api["paths"], request=api["components"]["schemas"]["GenerationRequest"]
    )
