"""A run folder is recognised, and records all of its sweeps."""

from __future__ import annotations

import pytest

from musicgen_lab import GenerationRequest, MusicGenLabWarning, Results, RunFolderError, Sweep
from musicgen_lab.runs.run_folder import RunFolder
from tests.support.sines import SineBackend

SWEEP = Sweep(prompt="a", duration=1, seed=range(2))


def test_a_folder_with_other_contents_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"holds something else \(thesis.tex\)"):
        SWEEP.run(SineBackend(), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(path)


@pytest.mark.parametrize("content", ['{"name": "another program"}', "not json", ""])
def test_a_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(RunFolderError, match="was not written by a sweep"):
        RunFolder(tmp_path)


def test_results_of_a_folder_without_a_run_say_so(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        Results.open(tmp_path)
    with pytest.raises(RunFolderError, match="does not exist"):
        Results.open(tmp_path / "nowhere")


def test_a_damaged_manifest_is_set_aside_and_the_clips_are_kept(tmp_path):
    SWEEP.run(SineBackend(), tmp_path, progress=False)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.warns(MusicGenLabWarning, match="The clips are kept"):
        results = Results.open(tmp_path)
    assert len(results.frame) == 2
    backend = SineBackend()
    SWEEP.run(backend, tmp_path, progress=False)
    assert backend.made == []


def test_sweeps_of_one_folder_are_remembered_in_order_and_once(tmp_path):
    larger = Sweep(prompt="a", duration=1, seed=range(3))
    for sweep in (SWEEP, larger, SWEEP):
        sweep.run(SineBackend(), tmp_path, progress=False)
    run = RunFolder(tmp_path)
    assert [len(sweep.requests) for sweep in run.sweeps] == [2, 3]
    assert [request.seed for request in run.asked()] == [0, 1, 2]
    assert run.sweeps[1].design == {
        "kind": "grid",
        "fields": {"prompt": ["a"], "duration": [1], "seed": [0, 1, 2]},
    }
    assert isinstance(run.asked()[0], GenerationRequest)
