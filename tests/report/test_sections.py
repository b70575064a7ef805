"""A report reads what it needs of a run once."""

from __future__ import annotations

from collections import Counter

from musicgen_lab.listening.grid import report_grid
from musicgen_lab.report.sections import (
    effects_figure,
    findings,
    heatmap_figures,
    spectrogram_figures,
)
from musicgen_lab.runs import run_table
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats import study_tables
from tests.support.report_runs import make_run


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
    heatmap_figures(table)
    effects_figure(table)
    spectrogram_figures(table, level_range_db=60)
    assert counts == {"mel_spectrogram_db": 12, "main_effects": 1}
