"""Figures of a run, made for print and for the report. No global pyplot state is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.drawing import Drawing
from musicgen_lab.figures.facets import Page, describe, pages
from musicgen_lab.figures.mel_pictures import LEVEL_RANGE_DB, MelPictures
from musicgen_lab.figures.spectrogram_grid import draw_page

if TYPE_CHECKING:
    from musicgen_lab.clip import Clip
    from musicgen_lab.results import Results

T = TypeVar("T")


def spectrogram_grid(
    results: Results, *, level_range_db: float = LEVEL_RANGE_DB, **fixed: Any
) -> Drawing:
    """Draw the mel spectrograms of a run's clips as a grid on one colour scale.

    Temperature goes down and cfg_coef across where they are swept; otherwise the next swept fields
    do, see `figures.facets.pages`. Failed clips are hatched, silent ones are marked, and the
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
    Drawing
        Save it with `drawing.save("grid.svg")`.

    Raises
    ------
    InvalidRequest
        When the run has no clips yet, or none with the values in `fixed`.
    """
    return draw_page(
        _page(results, fixed), results, MelPictures(results, level_range_db=level_range_db)
    )


def heatmap(results: Results, feature: str, **fixed: Any) -> Drawing:
    """Draw a feature over the grid: mean over seeds, spread and count in every cell.

    Cells whose clips all failed are hatched, silent ones and those not made yet are told apart.
    All pages of a run share one colour scale.

    Parameters
    ----------
    results : Results
    feature : str
        One of `musicgen_lab.analysis.features.FEATURES`.
    **fixed
        As in `spectrogram_grid`, without the seed.

    Returns
    -------
    Drawing

    Raises
    ------
    InvalidRequest
        When there is no such feature, no clip, no grid to lay out, or no page with the values in
        `fixed`.
    """
    drawn = heatmaps(results, feature)
    if not drawn:
        raise InvalidRequest(
            f"a heatmap needs a grid of clips, and {results.folder} holds none; "
            "plots.effects and plots.clip_map draw what is no grid",
            field="results",
        )
    return _chosen(drawn, fixed)


def heatmaps(results: Results, feature: str) -> list[tuple[Mapping[str, Any], Drawing]]:
    """Draw `heatmap` for every combination of the fields that are neither down nor across.

    Returns
    -------
    list of (fields, Drawing)
        Empty where the clips are no grid.
    """
    from musicgen_lab.analysis.features import FEATURES
    from musicgen_lab.figures.cells import cell_pages
    from musicgen_lab.figures.heatmap import draw_heatmap

    found = cell_pages(results, feature)
    means = [cell.mean for page in found for cell in page.cells if cell.n]
    limits = (min(means), max(means)) if means else None
    return [(page.fixed, draw_heatmap(page, FEATURES[feature], limits)) for page in found]


def effects(results: Results, features: Sequence[str] | None = None) -> Drawing:
    """Draw how much each swept parameter moves each feature, with 95% intervals.

    One panel per feature, in its unit, with a dot and an interval per parameter: the mean at the
    parameter's highest level minus that at its lowest, over seeds. Filled where the effect holds
    after the correction for the number of questions asked, hollow where nothing can be concluded.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        The default are those of the report.

    Raises
    ------
    InvalidRequest
        When there is no such feature, or no parameter but the seed is swept.
    """
    from musicgen_lab.figures.effects import draw_effects
    from musicgen_lab.stats.study_tables import effects_of

    return draw_effects(effects_of(results, features))


def clip_map(
    results: Results, colour_by: str | None = None, features: Sequence[str] | None = None
) -> Drawing:
    """Draw all clips on a plane, those with like features near each other.

    Parameters
    ----------
    results : Results
    colour_by : str, optional
        A swept field; the first one if not given.
    features : sequence of str, optional
        All that are numbers if not given.

    Raises
    ------
    InvalidRequest
        When the field is not swept, there is no such feature, or too few clips sound.
    """
    from musicgen_lab.figures.clip_map import draw_map

    swept = results.swept
    colour_by = colour_by or next(iter(results.parameters or swept), None)
    if colour_by not in swept:
        raise InvalidRequest(
            f"colour_by must be a swept field, got {colour_by!r}; swept are "
            f"{', '.join(swept) or 'none'}",
            field="colour_by",
            value=colour_by,
        )
    return draw_map(results.map_coordinates(features), colour_by)


def compare(a: Clip, b: Clip, features: Sequence[str] | None = None) -> Drawing:
    """Draw two clips on the same axes: spectrograms, their difference in dB, their features.

    Parameters
    ----------
    a, b : Clip
        From `Results.clip`, of one run or of two.
    features : sequence of str, optional
        Which to put in the table. The default are those of the report.

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    from musicgen_lab.figures.pair import draw_pair
    from musicgen_lab.stats.study_tables import chosen_features

    return draw_pair(a, b, chosen_features(features))


def _page(results: Results, fixed: dict[str, Any]) -> Page:
    found = pages(results)
    if not found:
        raise InvalidRequest(
            f"there are no clips in {results.folder} to draw; run the sweep first", field="results"
        )
    return _chosen([(page.fixed, page) for page in found], fixed)


def _chosen(found: Sequence[tuple[Mapping[str, Any], T]], fixed: Mapping[str, Any]) -> T:
    """Return the first of several pages that has the given values."""
    for there, page in found:
        if all(there.get(name) == value for name, value in fixed.items()):
            return page
    said = " or ".join(describe(there) for there, _ in found if there) or "one page only"
    raise InvalidRequest(f"no grid has {describe(fixed)}; there is {said}")
