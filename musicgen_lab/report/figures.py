"""The figures of a report, on light and on dark paper, as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from musicgen_lab.figures.facets import pages
from musicgen_lab.stats.study_tables import chosen_features, effects_of, strongest

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.figures.drawing import Drawing
    from musicgen_lab.results import Results

HEATMAPS_MAX = 6
SPECTROGRAM_PAGES_MAX = 2  # a page of 25 is a megabyte, and the listening grid shows them all
PAGES_PER_FEATURE_MAX = 2


def spectrogram_figures(results: Results, *, level_range_db: float) -> HTML:
    """Show the spectrogram grids with axes.

    At most two are drawn; the text says where there are more.

    Parameters
    ----------
    results : Results
    level_range_db : float > 0
        From the lightest colour down to the darkest, in dB.

    Returns
    -------
    IPython.display.HTML
        The pictures are inside it.
    """
    from IPython.display import HTML

    from musicgen_lab.figures.mel_pictures import MelPictures
    from musicgen_lab.figures.spectrogram_grid import draw_page

    found = pages(results)
    pictures = MelPictures(results, level_range_db=level_range_db)
    parts = [
        figure_block(draw_page(page, results, pictures), f"Spectrogram grid {page.heading}".strip())
        for page in found[:SPECTROGRAM_PAGES_MAX]
    ]
    if len(found) > SPECTROGRAM_PAGES_MAX:
        parts.append(
            f"<p>The first {SPECTROGRAM_PAGES_MAX} of {len(found)} grids. "
            "<code>results.spectrograms</code> draws the others.</p>"
        )
    return HTML("".join(parts) or "<p>No clip has been made yet.</p>")


def heatmap_figures(results: Results, features: Sequence[str] | None = None) -> HTML:
    """Show where in the grid the features are high and low, those with sure effects first.

    At most six are drawn; the text says where there are more.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.stats.study_tables.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    from musicgen_lab.analysis.features import FEATURES, NUMBERS
    from musicgen_lab.figures.plots import heatmaps

    names = [name for name in chosen_features(features) if name in NUMBERS]
    first = [effect["feature"] for effect in strongest(effects_of(results, names))]
    ordered = list(dict.fromkeys([*first, *names]))
    drawn = [
        (FEATURES[name].label, drawing)
        for name in ordered
        for _, drawing in heatmaps(results, name)[:PAGES_PER_FEATURE_MAX]
    ]
    if not drawn:
        return HTML("<p>The clips of this run are no grid, so there is no heatmap of them.</p>")
    blocks = "".join(
        figure_block(drawing, f"Heatmap: {label}") for label, drawing in drawn[:HEATMAPS_MAX]
    )
    more = (
        "<p>There are more features and grids than are shown; <code>results.heatmap</code> "
        "draws the others.</p>"
        if len(drawn) > HEATMAPS_MAX
        else ""
    )
    return HTML(f'<div class="figures">{blocks}</div>{more}')


def effects_figure(results: Results, features: Sequence[str] | None = None) -> HTML:
    """Show the effects of every swept parameter with their intervals.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.stats.study_tables.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    from musicgen_lab.figures.effects import draw_effects

    effects = effects_of(results, features)
    if effects.empty:
        return HTML("<p>Nothing but the seed was swept.</p>")
    return HTML(figure_block(draw_effects(effects), "Effects with intervals"))


def figure_block(drawing: Drawing, name: str) -> str:
    """Return a drawing as HTML that scrolls by itself where the window is narrow."""
    return (
        f'<div class="figure" role="region" aria-label="{escape(name, quote=True)}" tabindex="0">'
        f"{drawing.picture()}</div>"
    )
