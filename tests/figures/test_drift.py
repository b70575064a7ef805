"""Long clips are drawn window by window, with the seams where their windows join."""

from __future__ import annotations

import json

import numpy as np
import pytest

from musicgen_lab import InvalidRequest
from musicgen_lab.figures.drift import plot_drift
from musicgen_lab.figures.spectrogram_grid import plot_spectrograms
from musicgen_lab.report.sections import drift_figure
from musicgen_lab.results import Results
from musicgen_lab.runs.derived import window_values
from musicgen_lab.runs.run_table import RunTable
from tests.support.figure_text import assert_text_is_legible
from tests.support.report_runs import make_run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two clips of each length, 20 s and 50 s."""
    folder = tmp_path_factory.mktemp("long")
    return RunTable.open(make_run(folder, duration=[20, 50], seed=[0, 1]))


def dotted(axes):
    return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]


def test_each_long_clip_has_a_step_for_each_window_and_seams_are_dotted(table):
    drawing = plot_drift(table)
    assert_text_is_legible(drawing.figure)
    loudness = drawing.figure.axes[0]
    assert loudness.get_title(loc="left") == "Loudness (LUFS)"
    assert dotted(loudness) == [30, 48]
    *clips, mean = (steps.get_data() for steps in loudness.patches)
    assert len(clips) == 2
    assert list(mean.edges) == [0, 30, 50]  # the last 2 s belong to the window before
    assert mean.values == pytest.approx(np.mean([clip.values for clip in clips], axis=0))
    assert "duration 50 s, extend_stride 18" in drawing.alt
    assert "2 clips, from the first window to the last: loudness" in drawing.alt


def test_a_single_long_clip_has_its_spectrogram_above(table):
    drawing = plot_drift(table.select(duration=50, seed=1))
    spectrogram, loudness, *_ = drawing.figure.axes
    assert spectrogram.images and dotted(spectrogram) == [30, 48]
    assert loudness.get_xlim() == spectrogram.get_xlim() == (0, 50)
    assert "thick line" not in drawing.alt


def test_the_spectrogram_of_a_long_clip_has_its_seams_marked(table):
    short, _, long, _ = plot_spectrograms(table).figure.axes[:4]
    assert dotted(short) == []
    assert dotted(long) == [30, 48]


def test_a_run_without_long_clips_is_refused_and_has_no_section_in_a_report(table):
    short = table.select(duration=20)
    with pytest.raises(InvalidRequest, match=r"no clip in .* is long enough for two windows"):
        plot_drift(short)
    assert not drift_figure(short).data.strip()


def test_a_report_states_the_drifts_and_a_study_asks_about_them_as_of_any_feature(table):
    section = drift_figure(table).data
    assert "<h2>Long clips</h2>" in section
    assert "over 2 clips (mean ± standard deviation): loudness drift" in section
    results = Results(table.select(duration=50))
    assert results.summary("loudness_drift_lu")["n"].tolist() == [2]


def test_what_is_measured_of_windows_is_kept_in_the_run_folder(table):
    measured = window_values(table)
    kept = json.loads((table.folder / "windows.json").read_text())
    for windows in kept.values():
        windows[0]["loudness_lufs"] = -1.0
    (table.folder / "windows.json").write_text(json.dumps(kept))
    read = window_values(RunTable.open(table.folder))
    assert [len(windows) for windows in read] == [len(windows) for windows in measured]
    assert {windows[0]["loudness_lufs"] for windows in read if windows} == {-1.0}
