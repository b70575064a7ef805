"""`Drawing`: a figure with alt text, for notebooks, pages and print, light and dark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.templating import data_uri, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PAPER = "#1d1d22", "#ffffff"
DARK_INK, DARK_PAPER = "#e9e8ee", "#17161b"
MUTED = "#8a8892"
NOTHING = (MUTED, 0.3)  # the face of what has no value
ACCENT = "#b3367a"  # dark enough on light paper, light enough on dark
STYLE = Path(__file__).parent / "lab.mplstyle"
CSS_PX_PER_IN = 100
FORMATS = ("png", "svg", "pdf")


@contextmanager
def lab_style() -> Iterator[None]:
    """Draw in the style of `lab.mplstyle`: a context, or a decorator of a function that draws."""
    from matplotlib import rc_context

    with rc_context(fname=STYLE):
        yield


def add_title(figure: Figure, text: str) -> None:
    """Write a title over a whole figure, from its left edge, in as many lines as it takes."""
    figure.suptitle(text, x=0.1 / figure.get_figwidth(), ha="left", wrap=True)


@dataclass(frozen=True)
class Drawing:
    """A figure with alt text, which a notebook displays.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        May be modified before saving. It is not registered with pyplot.
    alt : str
        A description for people who cannot see the figure.
    """

    figure: Figure
    alt: str

    def save(self, path: str | Path) -> Path:
        """Save the figure, with its alt text as metadata, as PNG, SVG or PDF.

        Parameters
        ----------
        path : str or Path
            Its suffix selects the format.

        Raises
        ------
        InvalidRequest
            When the suffix is another one.
        RunFolderUnwritable
            When the file cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind not in FORMATS:
            raise InvalidRequest(
                f"a drawing is saved as .png, .svg or .pdf, got {path.name!r}",
                field="path",
                value=str(path),
            )
        write_atomically(path, self._encode(kind))
        return path

    def png(self, *, dark: bool = False) -> bytes:
        """Encode the figure as PNG, on a light or a dark background."""
        if not dark:
            return self._encode("png")
        from matplotlib.text import Text

        inked = [text for text in self.figure.findobj(Text) if text.get_color() == INK]
        for text in inked:
            text.set_color(DARK_INK)
        for axes in self.figure.axes:
            axes.tick_params(colors=DARK_INK)
        self.figure.set_facecolor(DARK_PAPER)
        try:
            return self._encode("png")
        finally:
            for text in inked:
                text.set_color(INK)
            for axes in self.figure.axes:
                axes.tick_params(color=MUTED, labelcolor=INK)
            self.figure.set_facecolor(PAPER)

    def svg(self) -> bytes:
        """Encode the figure as SVG, with text as text elements."""
        return self._encode("svg")

    @property
    def size_px(self) -> tuple[int, int]:
        """Its width and height on a page, in CSS pixels."""
        width, height = (round(size * CSS_PX_PER_IN) for size in self.figure.get_size_inches())
        return width, height

    def _repr_html_(self) -> str:
        """Return the figure as HTML, light or dark to match its surroundings."""
        width, height = self.size_px
        light, dark = (data_uri(self.png(dark=dark), ".png") for dark in (False, True))
        return render(
            "figures/figure.html.j2",
            light=light,
            dark=dark,
            alt=self.alt,
            width=width,
            height=height,
        )

    def _encode(self, kind: str) -> bytes:
        words = {"svg": "Title", "png": "Description", "pdf": "Subject"}[kind]
        metadata: dict[str, str | None] = {words: self.alt}
        if kind != "png":
            metadata["Date" if kind == "svg" else "CreationDate"] = None  # the same bytes each time
        buffer = io.BytesIO()
        with warnings.catch_warnings(), lab_style():
            # A prompt may be in a script that the font lacks; the alt text has it whole.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            self.figure.savefig(buffer, format=kind, metadata=metadata)
        return buffer.getvalue()
