"""A run folder is recognised, and records all of its sweeps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydantic_core
import pytest

from musicgen_lab import GenerationRequest, MusicGenLabWarning, Results, RunFolderError, Sweep
from musicgen_lab.errors import RunFolderUnwritable
from musicgen_lab.runs import atomic_io
from musicgen_lab.runs.run_folder import DERIVED, RunFolder
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


@pytest.mark.parametrize(("name", "reason"), [("a" * 300, "too long"), ("a\0", "null byte")])
def test_a_path_that_no_folder_can_have_is_refused(tmp_path, name, reason):
    with pytest.raises(RunFolderError, match=f"cannot be opened .*{reason}.*; give another folder"):
        RunFolder(tmp_path / name)


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


def run_two(folder):
    SWEEP.run(SineBackend(), folder, progress=False)
    return folder / "sweep.json"


def edit(manifest, change):
    content = json.loads(manifest.read_text())
    change(content["sweeps"][0])
    manifest.write_text(json.dumps(content))


def test_a_damaged_manifest_is_read_as_empty_and_set_aside_when_the_sweep_is_run_again(tmp_path):
    run_two(tmp_path).write_text("{")
    with pytest.warns(MusicGenLabWarning, match=r"sweep.json is damaged.* clips are kept"):
        assert len(Results.open(tmp_path).frame) == 2
    assert (tmp_path / "sweep.json").read_text() == "{"
    backend = SineBackend()
    with pytest.warns(MusicGenLabWarning, match=r"sweep.json is damaged"):
        SWEEP.run(backend, tmp_path, progress=False)
    assert backend.made == []
    assert len(list((tmp_path / "set-aside").iterdir())) == 1
    assert len(RunFolder(tmp_path).sweeps) == 1


CHANGES = {
    "a value of the design": lambda sweep: sweep["design"]["fields"].update(prompt=["b"]),
    "a field of a request": lambda sweep: sweep["requests"][0].update(temperature=0.9),
    "a request that is gone": lambda sweep: sweep["requests"].pop(),
    "the version": lambda sweep: sweep.update(lab_version="9"),
    "the time": lambda sweep: sweep.update(asked_at="2031-01-01T00:00:00+00:00"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_was_changed_is_not_believed(tmp_path, change):
    edit(run_two(tmp_path), CHANGES[change])
    with pytest.warns(MusicGenLabWarning, match=r"sweep.json is damaged"):
        assert RunFolder(tmp_path).requests() == []


def test_a_manifest_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path):
    manifest = run_two(tmp_path)
    content = json.loads(manifest.read_text())
    del content["sha256"]
    manifest.write_text(json.dumps(content))
    assert len(RunFolder(tmp_path).requests()) == 2
    edit(manifest, CHANGES["a field of a request"])
    with pytest.warns(MusicGenLabWarning, match=r"sweep.json is damaged"):
        assert RunFolder(tmp_path).requests() == []


FORGERIES = {
    "an unknown kind": {"kind": "random", "fields": {}},
    "an unknown field": {"kind": "grid", "fields": {"heat": [1]}},
    "a value of another type": {"kind": "grid", "fields": {"seed": [[1]]}},
    "a long text": {"kind": "grid", "fields": {"prompt": ["a" * 10_000]}},
    "code for a number": {"kind": "sample", "n": "1); x", "seed": 0, "replicates": 1, "fields": {}},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_design_that_no_sweep_has_is_not_believed_whatever_its_checksum(tmp_path, forgery):
    manifest = run_two(tmp_path)
    edit(manifest, lambda sweep: sweep.update(design=FORGERIES[forgery]))
    content = json.loads(manifest.read_text())
    encoded = pydantic_core.to_json(content["sweeps"])
    content["sha256"] = hashlib.sha256(encoded).hexdigest()
    manifest.write_text(json.dumps(content))
    with pytest.warns(MusicGenLabWarning, match=r"sweep.json is damaged"):
        assert RunFolder(tmp_path).sweeps == []


def test_a_folder_that_lost_its_manifest_says_so_is_read_and_gets_a_new_one(tmp_path):
    run_two(tmp_path).unlink()
    with pytest.warns(MusicGenLabWarning, match=r"lost its sweep.json.* its 2 clips are kept"):
        assert len(Results.open(tmp_path).frame) == 2
    backend = SineBackend()
    with pytest.warns(MusicGenLabWarning, match=r"lost its sweep.json"):
        SWEEP.run(backend, tmp_path, progress=False)
    assert backend.made == []
    assert len(RunFolder(tmp_path).sweeps) == 1


@pytest.mark.parametrize("file", DERIVED)
def test_what_was_computed_from_the_clips_is_nothing_else_in_a_folder_that_lost_its_manifest(
    tmp_path, file
):
    run_two(tmp_path).unlink()
    (tmp_path / file).write_text("{}")
    with pytest.warns(MusicGenLabWarning, match=r"lost its sweep.json"):
        assert len(Results.open(tmp_path).frame) == 2


class HarmingBackend(SineBackend):
    """Harms the folder while its second clip is in the making."""

    def __init__(self, harm):
        super().__init__()
        self.harm = harm

    def generate(self, requests, on_progress=None):
        for request in requests:
            if len(self.made) == 1:
                self.harm()
            yield from super().generate([request], on_progress)


def test_a_folder_that_is_removed_in_mid_sweep_stops_it_at_once_and_is_not_made_anew(tmp_path):
    folder = tmp_path / "run"
    backend = HarmingBackend(lambda: shutil.rmtree(folder))
    with pytest.raises(RunFolderUnwritable, match="was removed or moved while the sweep ran"):
        Sweep(prompt="a", duration=1, seed=range(40)).run(backend, folder, progress=False)
    assert len(backend.made) == 2
    assert not folder.exists()


def test_a_folder_that_is_moved_in_mid_sweep_stops_it_at_once_and_keeps_its_clips(tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "archive"
    backend = HarmingBackend(lambda: folder.rename(elsewhere))
    with pytest.raises(RunFolderUnwritable, match="was removed or moved while the sweep ran"):
        Sweep(prompt="a", duration=1, seed=range(40)).run(backend, folder, progress=False)
    assert len(backend.made) == 2
    assert len(Results.open(elsewhere).frame) == 1


def test_a_folder_that_is_replaced_in_mid_sweep_is_not_written_to(tmp_path):
    folder = tmp_path / "run"

    def replace():
        folder.rename(tmp_path / "archive")
        run_two(folder)

    with pytest.raises(RunFolderUnwritable, match="was removed or moved while the sweep ran"):
        larger = Sweep(prompt="a", duration=1, seed=range(40))
        larger.run(HarmingBackend(replace), folder, progress=False)
    assert len(Results.open(folder).frame) == 2


def test_a_folder_that_loses_its_manifest_in_mid_sweep_stops_it_at_once(tmp_path):
    backend = HarmingBackend((tmp_path / "sweep.json").unlink)
    with pytest.raises(RunFolderUnwritable, match=r"sweep.json was removed while the sweep ran"):
        Sweep(prompt="a", duration=1, seed=range(40)).run(backend, tmp_path, progress=False)
    assert len(backend.made) == 2


def test_one_damaged_clip_is_one_failed_row_that_names_its_file(tmp_path):
    run_two(tmp_path)
    key = RunFolder(tmp_path).requests()[0].key()
    (tmp_path / "clips" / f"{key}.json").write_text("{}")
    with pytest.warns(MusicGenLabWarning, match=f"{key}.json is not used"):
        results = Results.open(tmp_path)
    assert list(results.frame["status"]) == ["failed", "ok"]
    assert results.frame["error"][0].startswith(f"DamagedFile: clips/{key}.json: its record")
    assert (results.frame["seed"][0], results.missing) == (0, 0)
    backend = SineBackend()
    with pytest.warns(MusicGenLabWarning, match="is not used"):
        results = SWEEP.run(backend, tmp_path, progress=False)
    assert [request.seed for request in backend.made] == [0]
    assert list(results.frame["status"]) == ["ok", "ok"]


def test_a_run_that_can_only_be_read_is_read_and_copied_also_with_a_damaged_clip(tmp_path):
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a disk needs root")
    try:
        run_two(disk)
        key = RunFolder(disk).requests()[0].key()
        (disk / "clips" / f"{key}.json").write_text("{}")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.warns(MusicGenLabWarning) as told:
            frame = Results.open(disk).frame
        assert list(frame["status"]) == ["failed", "ok"]
        texts = [str(warning.message) for warning in told]
        assert any(f"{key}.json is not used" in text for text in texts)
        assert any("results.parquet was not saved" in text for text in texts)
        with pytest.warns(MusicGenLabWarning, match="is not used"):
            copied = RunFolder(disk).copy_to(copy)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert len(copied.requests()) == 2
    assert list(Results.open(copy).frame["status"]) == ["ok"]


def test_a_clip_that_is_no_sound_is_stored_as_a_failure(tmp_path):
    class NoisyBackend(SineBackend):
        def generate(self, requests, on_progress=None):
            for clip in super().generate(requests, on_progress):
                yield replace(clip, samples=clip.samples * np.float32("nan"))

    results = SWEEP.run(NoisyBackend(), tmp_path, progress=False)
    assert set(results.frame["error"]) == {"InvalidClip: its samples are not all finite numbers"}


def test_leftovers_of_killed_processes_go_after_an_hour_and_fresh_ones_stay(tmp_path):
    run_two(tmp_path)
    old = [tmp_path / name / ".old.1.tmp" for name in (".", "clips", "sources", "listening")]
    fresh = tmp_path / ".sweep.json.2.tmp"
    for path in (*old, fresh):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"RIFF")
    for path in old:
        os.utime(path, (0, 0))
    RunFolder(tmp_path).create()
    assert not any(path.exists() for path in old)
    assert fresh.exists()


def test_a_file_that_cannot_be_replaced_is_an_error_and_leaves_no_other(tmp_path):
    (tmp_path / "sweep.json").mkdir()
    with pytest.raises(RunFolderUnwritable):
        atomic_io.write_atomically(tmp_path / "sweep.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("name", ["clips", "set-aside"])
def test_a_folder_of_clips_elsewhere_is_not_followed(tmp_path, name):
    run = tmp_path / "run"
    run_two(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(elsewhere)
    with pytest.raises(RunFolderError, match=f"{name} is a link that leaves the run folder"):
        RunFolder(run)


def test_a_lock_that_is_held_elsewhere_is_told_with_its_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_io, "LOCK_TIMEOUT_S", 0.1)
    code = (
        "import sys, pathlib; from musicgen_lab.runs.atomic_io import folder_lock\n"
        "with folder_lock(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with (
            pytest.raises(RunFolderUnwritable, match=f"locked .* by process {holder.pid} on "),
            atomic_io.folder_lock(tmp_path),
        ):
            pass
        holder.stdin.close()
    with atomic_io.folder_lock(tmp_path):
        pass


def test_sweeps_of_one_folder_are_remembered_in_order_and_once(tmp_path):
    larger = Sweep(prompt="a", duration=1, seed=range(3))
    for sweep in (SWEEP, larger, SWEEP):
        sweep.run(SineBackend(), tmp_path, progress=False)
    run = RunFolder(tmp_path)
    assert [len(sweep.requests) for sweep in run.sweeps] == [2, 3]
    assert [request.seed for request in run.requests()] == [0, 1, 2]
    assert run.sweeps[1].design == {
        "kind": "grid",
        "fields": {"prompt": ["a"], "duration": [1], "seed": [0, 1, 2]},
    }
    assert isinstance(run.requests()[0], GenerationRequest)
