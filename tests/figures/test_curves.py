"""Curves show every seed, and the means that the tables have."""

from __future__ import annotations

import pytest

from musicgen_lab import InvalidRequest, Sweep
from musicgen_lab.figures.curves import plot_curves
from musicgen_lab.results import Results
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.study_tables import StudyTables
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import make_run
from tests.support.sines import SineBackend


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(4)}
    return RunTable.open(make_run(tmp_path_factory.mktemp("study"), **fields))


def lines(axes):
    """Return the dots and the line of means of a panel."""
    dots, means = axes.lines
    return dots, means


def test_a_panel_for_each_parameter_has_a_dot_for_each_seed_and_a_line_through_their_means(study):
    drawing = plot_curves(study, ["spectral_centroid_hz"])
    by_temperature, by_cfg_coef = drawing.figure.axes
    dots, means = lines(by_temperature)
    expected = study.frame.groupby("temperature")["spectral_centroid_hz"].mean()
    assert len(dots.get_xdata()) == 3 * 4
    assert list(means.get_xdata()) == [0.5, 1.0, 1.5]
    assert means.get_ydata() == pytest.approx(expected.to_numpy())
    assert by_temperature.get_xlabel() == "temperature"
    assert list(by_temperature.get_xticks()) == [0.5, 1.0, 1.5]
    assert list(by_cfg_coef.get_xticks()) == [1, 3]
    assert by_cfg_coef.get_ylim() == by_temperature.get_ylim()
    assert "brightness by temperature, 0.5: " in drawing.alt


def test_prompts_stand_side_by_side_without_a_line_between_them(tmp_path):
    sweep = Sweep(prompt=["calm", "loud"], seed=range(3), duration=1)
    table = sweep.run(SineBackend(), tmp_path, progress=False).table
    (axes,) = plot_curves(table, ["rms_dbfs"]).figure.axes
    _, means = lines(axes)
    assert means.get_linestyle() == "None"
    assert "averaged" not in axes.figure.get_suptitle()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["calm", "loud"]


def test_a_random_design_shows_every_clip(tmp_path):
    sweep = Sweep.sample(12, prompt="a", duration=1, temperature=(0.2, 1.8), cfg_coef=(1, 3))
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    for axes in results.plot_curves(["spectral_centroid_hz"]).figure.axes:
        dots, _ = lines(axes)
        assert len(dots.get_xdata()) == 12


def test_a_random_design_shows_the_trends_of_the_tables(tmp_path):
    sweep = Sweep.sample(30, prompt="a", duration=1, temperature=(0.5, 1.5), cfg_coef=(1, 8))
    table = sweep.run(SineBackend(), tmp_path, progress=False).table
    study = StudyTables.of(table, ["spectral_centroid_hz"])
    rho = study.trends.set_index("parameter").loc["temperature", "rho"]

    drawing = plot_curves(table, ["spectral_centroid_hz"], study=study)

    temperature, cfg_coef = drawing.figure.axes
    assert temperature.lines[1].get_linestyle() == "-"  # the sines' pitch follows it
    assert cfg_coef.lines[1].get_linestyle() == "--"
    assert f"rank correlation {rho:.2f}" in temperature.get_title(loc="left")
    assert f"rank correlation {rho:.2f}" in drawing.alt


def test_long_prompts_are_numbered_under_the_axis(tmp_path):
    start = "a slow and mournful ballad in the style of a rainy evening, "
    prompts = [start + end for end in ("with drums", "with a choir")]
    table = RunTable.open(make_run(tmp_path, prompt=prompts))
    (axes,) = plot_curves(table, ["spectral_centroid_hz"]).figure.axes
    assert [text.get_text()[:4] for text in axes.get_xticklabels()] == ["1: …", "2: …"]


def test_five_long_prompts_under_an_axis_are_legible(tmp_path):
    start = "a slow and mournful ballad in the style of a rainy evening, with "
    prompts = [start + end for end in ("drums", "a choir", "brushes", "an organ", "strings")]
    table = RunTable.open(make_run(tmp_path, prompt=prompts, temperature=[0.5, 1.5]))
    figure = plot_curves(table, ["spectral_centroid_hz", "rms_dbfs"]).figure
    assert_text_is_legible(figure)
    prompt_labels = figure.axes[2].get_xticklabels()
    assert {text.get_rotation() for text in prompt_labels} == {25}


def test_a_sweep_of_seeds_alone_has_no_curves(tmp_path):
    seeds = Results.open(make_run(tmp_path, seed=range(3)))
    with pytest.raises(InvalidRequest, match="nothing but the seed was swept"):
        seeds.plot_curves()
