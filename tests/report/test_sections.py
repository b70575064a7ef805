"""A report reads what it needs of a run once, and draws nothing where nothing is to be seen."""

from __future__ import annotations

from collections import Counter

import pytest

from musicgen_lab import Sweep
from musicgen_lab.analysis.features import FEATURES
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.effects import plot_effects
from musicgen_lab.formatting import mid_sentence
from musicgen_lab.listening.grid import report_grid
from musicgen_lab.report.sections import (
    effects_figure,
    feature_figures,
    findings,
)
from musicgen_lab.runs import run_table
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats import study_tables
from tests.support.report_runs import make_run
from tests.support.sines import SineBackend


def test_a_report_computes_one_spectrogram_for_each_clip_and_one_set_of_effects(
    tmp_path, monkeypatch
):
    counts = Counter()

    def counted(name, function):
        def count(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return count

    for module, name in ((run_table, "mel_spectrogram_db"), (study_tables, "main_effects")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    folder = make_run(tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3], seed=range(3))
    table = RunTable.open(folder)
    findings(table)
    report_grid(table, level_range_db=80)
    feature_figures(table)
    effects_figure(table)
    assert counts == {"mel_spectrogram_db": 12, "main_effects": 1}


def test_features_that_all_clips_have_alike_or_none_has_give_way_to_a_line(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3]))
    same = RunTable(table.run, table.frame.assign(silence_ratio=0.0, key_clarity=float("nan")))
    silence, key = (mid_sentence(FEATURES[name].label) for name in ("silence_ratio", "key_clarity"))
    shown = feature_figures(same, ["silence_ratio", "key_clarity", "rms_dbfs"]).data
    assert f"The same in every clip: {silence} (0)." in shown
    assert f"No clip has a value of {key}." in shown
    assert shown.count('aria-label="Heatmap') == 1


def test_a_run_whose_clips_all_failed_says_why_and_draws_nothing(tmp_path):
    table = RunTable.open(make_run(tmp_path, cfg_coef=[1, 3], temperature=[1, 2], failed=range(4)))
    shown = [
        report_grid(table, level_range_db=80).data,
        feature_figures(table).data,
        effects_figure(table).data,
    ]
    assert not any("<img" in part or "<table" in part for part in shown)
    assert "4 clips failed. OutOfMemoryError: no room for &lt;it&gt; (4 times)." in shown[0]


def test_a_single_parameter_and_a_random_design_have_curves(tmp_path):
    one = RunTable.open(make_run(tmp_path / "one", temperature=[0.7, 1, 1.3]))
    assert 'aria-label="Curve: RMS level"' in feature_figures(one, ["rms_dbfs"]).data
    sweep = Sweep.sample(12, prompt="a", duration=1, temperature=(0.5, 1.5), cfg_coef=(1, 8))
    drawn = sweep.run(SineBackend(), tmp_path / "drawn", progress=False).table
    assert 'aria-label="Curve: RMS level"' in feature_figures(drawn, ["rms_dbfs"]).data
    assert effects_figure(drawn, ["rms_dbfs"]).data.strip() == ""


def test_a_run_of_seeds_alone_has_no_empty_sections(tmp_path):
    table = RunTable.open(make_run(tmp_path, seed=range(3)))
    assert feature_figures(table).data.strip() == effects_figure(table).data.strip() == ""


def test_of_a_feature_without_a_mean_it_is_said_that_nothing_can_be_compared(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3], seed=range(3)))
    assert "None of the chosen features has a mean" in findings(table, ["key_estimate"]).data
    for section in (effects_figure, feature_figures):
        assert section(table, ["key_estimate"]).data.strip() == ""
    with pytest.raises(InvalidRequest, match="none of the features has a mean"):
        plot_effects(table, ["key_estimate"])


def test_the_number_of_tests_is_said_by_what_they_are_about(tmp_path):
    table = RunTable.open(make_run(tmp_path, temperature=[0.7, 1], cfg_coef=[1, 3], seed=range(3)))
    text = findings(table, ["spectral_centroid_hz"]).data
    assert "3 tests were performed on 1 feature: 2 for effects and 1 for interactions" in text
