"""HTML from jinja2 templates; every value is escaped."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML
    from jinja2 import Environment
    from markupsafe import Markup

PACKAGE = Path(__file__).parent
PARTS = ("figures", "listening", "report")
MEDIA_TYPES = {".mp3": "audio/mpeg", ".wav": "audio/wav", ".png": "image/png"}


def render(template: str, **values: Any) -> Markup:
    """Return a template's HTML.

    Parameters
    ----------
    template : str
        The package's part and the file in its `templates/`, such as "report/findings.html.j2".
    **values
        What the template shows. Text is escaped; `markupsafe.Markup` is not.
    """
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(values))


def show(template: str, **values: Any) -> HTML:
    """Return a template's HTML as the output of a notebook's cell; see `render`."""
    from IPython.display import HTML

    return HTML(render(template, **values))


def data_uri(content: bytes, suffix: str) -> str:
    """Return the content of a file with one of the suffixes in `MEDIA_TYPES` as a data URI."""
    return f"data:{MEDIA_TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, PrefixLoader, StrictUndefined

    folders = {part: FileSystemLoader(PACKAGE / part / "templates") for part in PARTS}
    return Environment(
        loader=PrefixLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
