"""Effects and clips are drawn as the tables have them."""

from __future__ import annotations

import pytest
from matplotlib.text import Text

from musicgen_lab import InvalidRequest
from musicgen_lab.figures.clip_map import plot_map
from musicgen_lab.figures.effects import plot_effects
from musicgen_lab.runs.run_table import RunTable
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import make_run

FEATURES = ["spectral_centroid_hz", "rms_dbfs"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The pitch follows the temperature, and nothing follows cfg_coef but the tempo."""
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(5)}
    return RunTable.open(make_run(tmp_path_factory.mktemp("study"), **fields))


def test_the_map_puts_similar_clips_together_and_states_its_explained_variance(study):
    drawing = plot_map(study, "cfg_coef", [*FEATURES, "onset_rate_hz"])
    axes = drawing.figure.axes[0]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 30
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "3"]
    assert "% of the variance" in axes.get_xlabel()
    assert "cfg_coef 1 around" in drawing.alt
    with pytest.raises(InvalidRequest, match="colour_by must be a swept field, got 'top_k'"):
        plot_map(study, "top_k")


def test_a_feature_that_is_the_same_in_every_clip_is_named_without_a_panel(study):
    drawing = plot_effects(study, ["spectral_centroid_hz", "clipping_share"])
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["Brightness"]
    assert "The same in every clip: clipping." in drawing.figure.get_suptitle()


def test_a_significant_effect_is_drawn_filled_with_its_interval(study):
    drawing = plot_effects(study, ["spectral_centroid_hz"])
    (axes,) = drawing.figure.axes
    texts = {text.get_text() for text in drawing.figure.findobj(Text)}
    assert {"Brightness", "Hz", "temperature\n0.5 to 1.5"} <= texts
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert dots[0].get_markerfacecolor() == dots[0].get_color()
    assert dots[1].get_markerfacecolor() == "none"  # nothing holds: the paper shows through
    assert axes.get_facecolor()[3] == 0
    assert drawing.alt.startswith("Effects with 95% intervals. temperature on brightness")


def test_no_text_of_many_panels_overlaps_another_or_leaves_the_paper(study):
    assert_text_is_legible(plot_effects(study).figure)
