"""The spectrogram grid shows every clip on one scale, and nothing in it overlaps."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from musicgen_lab import InvalidRequest, Sweep
from musicgen_lab.figures.mel_pictures import MelPictures
from musicgen_lab.figures.spectrogram_grid import plot_spectrograms
from musicgen_lab.runs.run_table import RunTable
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import make_run, without_measuring
from tests.support.sines import SineBackend

TWO_BY_TWO = {"temperature": [0.7, 1.0], "cfg_coef": [1, 3]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A 2 x 2 run with a loud, a missing, a failed and a silent clip."""
    folder = tmp_path_factory.mktemp("mixed")
    kinds = {"loud": [0], "missing": [1], "failed": [2], "silent": [3]}
    return RunTable.open(make_run(folder, **TWO_BY_TWO, **kinds))


def panels(drawing):
    return drawing.figure.axes[:-1]  # the last one is the colour bar


def texts(drawing):
    return [text.get_text() for text in drawing.figure.findobj(Text) if text.get_text()]


def test_all_panels_share_one_colour_scale_that_the_bar_shows(tmp_path):
    table = RunTable.open(make_run(tmp_path, **TWO_BY_TWO, loud=[0]))
    drawing = plot_spectrograms(table)
    limits = {image.get_clim() for axes in panels(drawing) for image in axes.images}
    (limit,) = limits
    assert limit[1] - limit[0] == 80
    highest_db = max(axes.images[0].get_array().max() for axes in panels(drawing))
    assert limit[1] - 10 < highest_db <= limit[1]
    assert drawing.figure.axes[-1].get_ylim() == limit
    assert "Level of a mel band (dB re full scale)" in texts(drawing)


def test_a_quieter_clip_is_drawn_darker(tmp_path):
    table = RunTable.open(make_run(tmp_path, seed=[0, 1], loud=[0]))
    loud, soft = (axes.images[0].get_array().max() for axes in panels(plot_spectrograms(table)))
    assert loud - soft == pytest.approx(20 * np.log10(5), abs=1.5)


def test_failed_silent_and_missing_facets_are_distinguished(mixed):
    ok, missing, failed, silent = panels(plot_spectrograms(mixed))
    assert ok.images and not ok.texts
    assert not missing.images and not missing.patch.get_hatch()
    assert failed.patch.get_hatch()
    assert failed.texts[0].get_text() == "failed\nOutOfMemoryError"
    assert silent.texts[0].get_text() == "silent"


def test_the_axes_have_units_and_the_rows_and_columns_their_values(mixed):
    said = texts(plot_spectrograms(mixed))
    assert "Time (s)" in said
    assert "Frequency (kHz), mel scale" in said
    assert {"cfg_coef 1", "cfg_coef 3", "temperature\n0.7", "temperature\n1"} <= set(said)
    assert "“calm guitar”" in said


def test_the_frequency_axis_is_true(tmp_path):
    """The tone of a clip at temperature 0 has 200 Hz: that is where it is drawn."""
    table = RunTable.open(make_run(tmp_path, temperature=0))
    (axes,) = panels(plot_spectrograms(table))
    (image,) = axes.images
    left, right, low, high = image.get_extent()
    row = np.argmax(np.asarray(image.get_array()).mean(axis=1))
    mel = low + (row + 0.5) / image.get_array().shape[0] * (high - low)
    assert mel * 200 / 3 == pytest.approx(200, abs=20)  # straight below 1 kHz
    assert left <= 0 and right == pytest.approx(1, abs=0.02)
    assert axes.get_xlim() == (0, 1)


def test_a_dollar_in_a_prompt_is_no_formula(tmp_path):
    drawing = plot_spectrograms(RunTable.open(make_run(tmp_path, prompt="$x_1$ and $\\broken")))
    assert drawing.png().startswith(b"\x89PNG")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (9, 9)])
def test_no_text_overlaps_another_or_leaves_the_paper(tmp_path, rows, columns):
    table = without_measuring(
        make_run(
            tmp_path,
            prompt="a rather long prompt that goes on and on about drums, bass and a piano " * 4,
            temperature=[round(0.4 + 0.2 * row, 1) for row in range(rows)],
            cfg_coef=[1.5 * (column + 1) for column in range(columns)],
        )
    )
    assert_text_is_legible(plot_spectrograms(table).figure)


def test_a_page_is_chosen_by_the_fields_that_are_neither_down_nor_across(tmp_path):
    table = RunTable.open(make_run(tmp_path, **TWO_BY_TWO, seed=[0, 7]))
    assert "“calm guitar”\nseed 0" in texts(plot_spectrograms(table))
    assert "“calm guitar”\nseed 7" in texts(plot_spectrograms(table, seed=7))
    assert "all with seed 7" in plot_spectrograms(table, seed=7).alt
    with pytest.raises(InvalidRequest, match="no grid has seed 1; there is seed 0 or seed 7"):
        plot_spectrograms(table, seed=1)


def test_a_run_without_clips_is_refused(tmp_path):
    table = RunTable.open(make_run(tmp_path, missing=[0]))
    with pytest.raises(InvalidRequest, match="there are no clips"):
        plot_spectrograms(table)


def test_the_alt_text_describes_the_figure(mixed):
    said = plot_spectrograms(mixed).alt
    assert "temperature 0.7, 1 from top to bottom" in said
    assert "cfg_coef 1, 3 from left to right" in said
    assert "failed: temperature 1, cfg_coef 1" in said
    assert "missing: temperature 0.7, cfg_coef 3" in said
    assert "silent: temperature 1, cfg_coef 3" in said


def test_no_value_stands_on_another_line_than_its_field(tmp_path):
    sweep = Sweep.sample(4, prompt="a", duration=1, temperature=(0.5, 1.5), cfg_coef=(1, 8))
    drawing = plot_spectrograms(sweep.run(SineBackend(), tmp_path, progress=False).table)
    titles = [axes.get_title("center") for axes in drawing.figure.axes]
    lines = [line for title in titles for line in title.splitlines()]
    assert len(lines) > 4
    assert all(re.fullmatch(r"((temperature|cfg_coef)\s[\d.]+,? ?)+", line) for line in lines)


def test_the_dark_figure_has_dark_paper(mixed):
    drawing = plot_spectrograms(mixed)
    light, dark = (
        Image.open(io.BytesIO(drawing.png(dark=dark))).convert("L").getpixel((2, 2))
        for dark in (False, True)
    )
    assert light > 240
    assert dark < 40


def test_pictures_show_time_to_the_right_and_frequency_upwards_on_the_common_scale(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=0, duration=[1, 2], silent=[1]))
    pictures = MelPictures(table)
    tone, silence = (
        np.asarray(Image.open(io.BytesIO(pictures.png(key))).convert("RGBA"), int)
        for key in table.frame["key"]
    )
    bright = tone[..., :3].sum(axis=2)
    assert np.argmax(bright.sum(axis=1)) > 0.8 * tone.shape[0]  # 200 Hz is near the bottom
    half = tone.shape[1] // 2
    assert np.all(tone[:, half + 10 :, 3] == 0)  # it lasts half as long as the other one
    assert np.all(tone[:, : half - 10, 3] == 255)
    assert np.all(silence[..., :3].sum(axis=2) < 10)


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys; from musicgen_lab.figures import spectrogram_grid;"
        "import matplotlib.figure;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
