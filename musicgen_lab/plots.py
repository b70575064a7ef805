"""Figures of a run, made for print and for the report. No global pyplot state is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.mel_pictures import LEVEL_RANGE_DB, MelPictures
from musicgen_lab.page_figure import draw_page, page_alt
from musicgen_lab.panels import Page, describe, pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from musicgen_lab.results import Results


def spectrogram_grid(
    results: Results, *, level_range_db: float = LEVEL_RANGE_DB, **fixed: Any
) -> Figure:
    """Draw the mel spectrograms of a run's clips as a grid on one colour scale.

    Temperature goes down and cfg_coef across where they are swept; otherwise the next swept fields
    do, see `musicgen_lab.panels.pages`. Failed clips are hatched, silent ones are marked, and the
    places of missing ones are blank. All panels share their axes: time in seconds, frequency in
    kHz on the mel scale, level in dB re full scale.

    Parameters
    ----------
    results : Results
    level_range_db : float > 0
        From the lightest colour down to the darkest, in dB.
    **fixed
        Which of the swept fields that are neither down nor across to hold at which value, such as
        `seed=1`. The first value of those not given. The title says what is shown.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with `figure.savefig("grid.svg")`.

    Raises
    ------
    InvalidRequest
        When the run has no clips yet, or none with the values in `fixed`.
    """
    return draw_page(
        _page(results, fixed), results, MelPictures(results, level_range_db=level_range_db)
    )


def spectrogram_grid_alt(results: Results, **fixed: Any) -> str:
    """Say in words what `spectrogram_grid` draws with the same arguments."""
    return page_alt(_page(results, fixed), results)


def _page(results: Results, fixed: dict[str, Any]) -> Page:
    found = pages(results)
    if not found:
        raise InvalidRequest(
            f"there are no clips in {results.folder} to draw; run the sweep first", field="results"
        )
    for page in found:
        if all(page.fixed.get(name) == value for name, value in fixed.items()):
            return page
    there = " or ".join(page.heading for page in found if page.heading) or "one page only"
    raise InvalidRequest(f"no grid has {describe(fixed)}; there is {there}")
