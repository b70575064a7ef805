"""Where the parts of a page of panels stand, in inches, and what its title and heads say."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from musicgen_lab.figures.facets import Page, describe, format_value, values_of

if TYPE_CHECKING:
    from musicgen_lab.results import Results

ROW_HEAD_IN = 1.15  # room for a row's field and value, beside it


@dataclass(frozen=True)
class PageFrame:
    """Where the panels stand on the paper; a layout engine takes seconds for 9 x 9.

    Attributes
    ----------
    title : str
        In its lines.
    panels_width, panels_height : float
        Of all panels together, in inches.
    gap_x, gap_y : float
        Between panels, as shares of a panel's width and height.
    left, right, top, bottom : float
        Margins in inches.
    """

    title: str
    panels_width: float
    panels_height: float
    gap_x: float
    gap_y: float
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def around(cls, page: Page, results: Results) -> PageFrame:
        """Make room for a page's panels, and for all that is written around them."""
        panel_width = {1: 6.0, 2: 3.6, 3: 2.8, 4: 2.4}.get(page.columns, 1.5)
        panel_height = {1: 3.4, 2: 2.3, 3: 1.9}.get(page.rows, 1.25 if page.columns > 4 else 1.6)
        text_lines = max((len(label_lines(panel.label)) for panel in page.panels), default=0)
        gap_x = 0.15
        gap_y = 0.16 + (0.16 * text_lines + 0.2 if page.is_list else 0.0)
        heads = (
            max(head(page.column_field, v, True).count("\n") + 1 for v in page.column_values)
            if page.column_values
            else text_lines
        )
        title = _title(page, results, page.columns * panel_width)
        title_lines = title.count("\n") + 1 if title else 0
        return cls(
            title=title,
            panels_width=page.columns * panel_width + (page.columns - 1) * gap_x,
            panels_height=page.rows * panel_height + (page.rows - 1) * gap_y,
            gap_x=gap_x / panel_width,
            gap_y=gap_y / panel_height,
            left=0.75,
            right=1.2 + (ROW_HEAD_IN if page.row_field else 0.0),
            top=0.3 + 0.235 * title_lines + 0.17 * heads,
            bottom=0.6,
        )

    @property
    def width(self) -> float:
        """Of the paper, in inches."""
        return self.left + self.panels_width + self.right

    @property
    def height(self) -> float:
        """Of the paper, in inches."""
        return self.bottom + self.panels_height + self.top

    def gridspec(self) -> dict[str, float]:
        """Return the same as matplotlib wants it: shares of the paper, and of a panel."""
        return {
            "left": self.left / self.width,
            "right": 1 - self.right / self.width,
            "bottom": self.bottom / self.height,
            "top": 1 - self.top / self.height,
            "wspace": self.gap_x,
            "hspace": self.gap_y,
        }


def head(name: str | None, value: Any, with_name: bool) -> str:
    """Write a row's or a column's value, with its field's name where there is room for it."""
    assert name is not None
    text = format_value(name, value)
    if with_name and len(name) + len(text) < 12:
        return f"{name} {text}"
    lines = textwrap.wrap(text, 15, max_lines=3, placeholder=" …")
    return "\n".join([name, *lines] if with_name else lines)


def label_lines(label: str) -> list[str]:
    """Write a panel's label in up to three lines."""
    return textwrap.wrap(label, 34, max_lines=3, placeholder=" …")


def _title(page: Page, results: Results, width_in: float) -> str:
    prompts = values_of([panel.record for panel in page.panels if panel.record], "prompt")
    lines = []
    if len(prompts) == 1:
        lines += textwrap.wrap(f"“{prompts[0]}”", width=int(width_in * 10), max_lines=4)
    if page.heading and list(page.fixed) != ["prompt"]:
        lines.append(page.heading)
    if not results.swept and page.panels[0].record is not None:
        record = page.panels[0].record
        lines.append(describe({name: record[name] for name in ("temperature", "cfg_coef", "seed")}))
    return "\n".join(lines)
