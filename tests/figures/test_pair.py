"""Two clips are drawn on the same axes, with what differs."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from musicgen_lab import Clip, GenerationRequest
from musicgen_lab.figures.pair import plot_pair
from musicgen_lab.runs.run_table import RunTable
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import beats, make_run
from tests.support.sines import PROVENANCE

FEATURES = ["spectral_centroid_hz", "rms_dbfs"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The pitch follows the temperature, and nothing follows cfg_coef but the tempo."""
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(5)}
    return RunTable.open(make_run(tmp_path_factory.mktemp("study"), **fields))


def test_two_clips_are_compared_on_one_scale_with_their_difference(study):
    frame = study.frame
    key = [frame.key[(frame.temperature == t) & (frame.seed == 0)].iloc[0] for t in (0.5, 1.5)]
    drawing = plot_pair(*(study.clip(k) for k in key), FEATURES)
    a, b, difference, *_ = drawing.figure.axes
    assert a.images[0].get_clim() == b.images[0].get_clim()
    assert difference.images[0].get_clim() == (-40, 40)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert "A: temperature 0.5" in texts and "B: temperature 1.5" in texts
    assert "Brightness (Hz)" in texts
    assert "Brightness (Hz): " in drawing.alt
    assert_text_is_legible(drawing.figure)


def test_a_clip_compared_with_itself_shows_no_difference(study):
    clip = study.clip(study.frame.key[0])
    drawing = plot_pair(clip, clip, FEATURES)
    assert abs(drawing.figure.axes[2].images[0].get_array()).max() == 0


def test_clips_of_other_rates_and_lengths_are_compared_where_both_sound():
    a, b = (
        beats(GenerationRequest(prompt="a", duration=duration, seed=0), sample_rate=rate)
        for duration, rate in ((1, 16_000), (2, 32_000))
    )
    drawing = plot_pair(a, b, FEATURES)
    difference = drawing.figure.axes[2]
    assert difference.get_xlim() == (0, 2)
    assert difference.images[0].get_extent()[1] == pytest.approx(1, abs=0.05)
    middle = difference.images[0].get_array()[:, 20:40]
    assert abs(float(middle.mean())) < 6  # the same beats, but for what the rates cannot share


def test_a_clip_without_samples_is_labelled_as_having_nothing_to_draw():
    request = GenerationRequest(prompt="a", duration=1, seed=0)
    nothing = Clip(request, np.zeros((1, 0), np.float32), 16_000, PROVENANCE, 0.1)
    drawing = plot_pair(beats(request), nothing, FEATURES)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert texts.count("nothing to draw") == 2
    assert "–" in texts


def test_prompts_with_a_common_beginning_are_named_by_what_differs():
    start = "a slow and mournful ballad in the style of a rainy evening, "
    a, b = (
        beats(GenerationRequest(prompt=start + end, duration=1, seed=0))
        for end in ("with drums", "with a choir")
    )
    texts = [text.get_text() for text in plot_pair(a, b, FEATURES).figure.findobj(Text)]
    assert "A: prompt 1: …drums" in texts and "B: prompt 2: …a choir" in texts
