"""A heatmap says every cell's mean, spread and count, and what is not there."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from musicgen_lab import InvalidRequest, Sweep
from musicgen_lab.figures.heatmap import PALE, Heatmaps, plot_heatmap
from musicgen_lab.runs.run_table import RunTable
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import make_run, without_measuring
from tests.support.sines import SineBackend

THREE = {"temperature": [0.7, 1.0, 1.3], "cfg_coef": [1, 3, 5], "seed": range(4)}
KINDS = {"failed": [0, 1, 2, 3, 9], "silent": [20, 21, 22, 23, 13], "missing": [32, 33, 34, 35, 5]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """3 x 3 cells of 4 seeds: one failed, one silent, one missing, some in part."""
    return RunTable.open(make_run(tmp_path_factory.mktemp("cells"), **THREE, **KINDS))


def texts(drawing):
    return [text.get_text() for text in drawing.figure.findobj(Text) if text.get_text().strip()]


def test_every_cell_has_its_mean_over_seeds_and_its_spread(mixed):
    said = texts(plot_heatmap(mixed, "spectral_centroid_hz"))
    here = mixed.frame[(mixed.frame.temperature == 1.3) & (mixed.frame.cfg_coef == 1)]
    values = here["spectral_centroid_hz"].astype(float)
    assert f"{values.mean():.0f}" in said
    assert f"± {np.std(values, ddof=1):.0f}" in said


def test_failed_silent_and_missing_cells_are_distinguished(mixed):
    drawing = plot_heatmap(mixed, "spectral_centroid_hz")
    patches = drawing.figure.axes[0].patches
    assert [index for index, patch in enumerate(patches) if patch.get_hatch()] == [0]
    assert {"failed", "silent"} <= set(texts(drawing))
    assert patches[8].get_facecolor()[3] == 0  # missing: the paper shows
    assert "temperature 1, cfg_coef 5: silent" in drawing.alt
    assert "temperature 1.3, cfg_coef 5: missing" in drawing.alt


def test_a_cell_that_has_fewer_clips_says_how_many_and_why(mixed):
    drawing = plot_heatmap(mixed, "spectral_centroid_hz")
    said = " ".join(texts(drawing))
    assert "n 3, 1 failed" in said and "n 3, 1 silent" in said
    assert "over 4 seeds unless said" in said.replace("\n", " ")


def test_the_unit_is_in_the_title_and_the_fields_on_the_axes(mixed):
    said = texts(plot_heatmap(mixed, "spectral_centroid_hz"))
    assert any(text.startswith("Brightness (Hz)\nMean") for text in said)
    assert {"temperature", "cfg_coef", "0.7", "1.3"} <= set(said)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (3, 3), (9, 9)])
def test_no_text_overlaps_another_or_leaves_the_paper(tmp_path, rows, columns):
    table = without_measuring(
        make_run(
            tmp_path,
            temperature=[round(0.4 + 0.1 * row, 1) for row in range(rows)],
            cfg_coef=[1.5 * (column + 1) for column in range(columns)],
            seed=range(2),
            failed=[0] if rows > 1 else [],
        )
    )
    assert_text_is_legible(plot_heatmap(table, "spectral_centroid_hz").figure)


def test_pages_of_a_third_field_share_one_scale(tmp_path):
    table = RunTable.open(make_run(tmp_path, **(THREE | {"seed": 0}), duration=[1, 2]))
    heatmaps = Heatmaps(table, "spectral_centroid_hz")
    assert [grid.facets.fixed for grid in heatmaps.grids] == [{"duration": 1.0}, {"duration": 2.0}]
    limits = {heatmaps.draw(grid).figure.axes[-1].get_ylim() for grid in heatmaps.grids}
    assert len(limits) == 1
    assert "duration 2 s" in plot_heatmap(table, "spectral_centroid_hz", duration=2).alt
    with pytest.raises(InvalidRequest, match="no grid has duration 3 s; there is duration 1 s or"):
        plot_heatmap(table, "spectral_centroid_hz", duration=3)


def test_what_is_no_grid_and_what_is_no_feature_is_refused(tmp_path):
    sweep = Sweep.sample(8, prompt="a", duration=1, temperature=(0.5, 1.5), cfg_coef=(1, 8))
    scattered = sweep.run(SineBackend(), tmp_path, progress=False).table
    with pytest.raises(InvalidRequest, match="a heatmap needs a grid"):
        plot_heatmap(scattered, "rms_dbfs")
    with pytest.raises(
        InvalidRequest, match=r"unknown feature 'loudnes' \(did you mean loudness_lufs"
    ):
        plot_heatmap(scattered, "loudnes")
    with pytest.raises(InvalidRequest, match="key_estimate is not a number"):
        plot_heatmap(scattered, "key_estimate")


def test_cells_that_the_seeds_spread_explains_are_pale_and_others_are_not(tmp_path):
    """The pitch follows the temperature alone; a clip's level is the same everywhere."""
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [2, 3], "seed": range(4)}
    table = RunTable.open(make_run(tmp_path, **fields))

    def strengths(feature):
        cells = plot_heatmap(table, feature).figure.axes[0].patches
        return [cell.get_facecolor()[3] for cell in cells]

    centroid = strengths("spectral_centroid_hz")
    assert centroid[:2] == centroid[4:] == [1, 1]
    assert set(strengths("silence_ratio")) <= {1, PALE} and PALE in centroid[2:4]
    said = " ".join(texts(plot_heatmap(table, "spectral_centroid_hz"))).replace("\n", " ")
    assert "pale: explained by the spread of the seeds" in said


def test_one_clip_in_each_cell_has_no_spread_and_is_said_to_have_none(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3]))
    said = " ".join(texts(plot_heatmap(table, "spectral_centroid_hz")))
    assert "Brightness (Hz)\nOne clip in each cell" in said
    assert "±" not in said and "pale" not in said
