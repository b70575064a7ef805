"""The README's command, run as a newcomer does: it makes, resumes, and survives being stopped."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pytest

from musicgen_lab import Results
from musicgen_lab.cli import cli
from tests.support.command import MUSICGEN_LAB, PROMPT, run_command

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """The README's first command, from the word after `musicgen-lab`, and the folder it ran in."""
    (line,) = re.findall(r"uv run musicgen-lab (sweep .*)", README.read_text())
    folder = tmp_path_factory.mktemp("newcomer")
    arguments = shlex.split(line)
    return folder, arguments, run_command(*arguments, cwd=folder)


def test_the_readmes_command_ends_with_the_path_of_a_report(first_run):
    folder, _, done = first_run
    assert done.returncode == 0, done.stderr
    report = folder / done.stdout.strip().splitlines()[-1]
    assert report.name == "report.html"
    frame = Results.open(report.parent).frame
    assert list(frame["status"]) == ["ok"] * 27
    assert (frame["duration_s"] == 4).all()
    assert frame["rms_dbfs"].between(-60, 0).all()
    assert frame["audio_sha256"].nunique() == 27


def test_no_noise_of_libraries_reaches_the_user(first_run):
    _, _, done = first_run
    lines = [line for line in re.split(r"[\r\n]", done.stderr) if line.strip()]
    known = re.compile(
        r"making 27 clips|opening the model$|\d+ of 108 s of sound|making the report$|27 made, "
    )
    assert [line for line in lines if not known.match(line)] == []
    assert len(lines) <= 15


def test_running_it_again_makes_nothing_new_and_says_so(first_run):
    folder, arguments, _ = first_run
    clips = {path.name: path.stat().st_mtime_ns for path in folder.glob("runs/first/clips/*.[jw]*")}
    done = run_command(*(a for a in arguments if a != "--report"), cwd=folder)
    assert done.returncode == 0
    assert "nothing new to make: all 27 clips are there" in done.stderr
    again = {path.name: path.stat().st_mtime_ns for path in folder.glob("runs/first/clips/*.[jw]*")}
    assert {name: again[name] for name in clips} == clips


def test_a_sweep_without_a_report_neither_imports_librosa_nor_measures(tmp_path):
    """An import hook makes librosa unavailable; it is needed when the frame is first read."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['librosa'] = None\n")
    done = run_command(
        "sweep", *PROMPT, "--duration", "1", "--out", "run",
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "run\n"), done.stderr
    assert not (tmp_path / "run" / "results.parquet").exists()
    assert Results.open(tmp_path / "run").frame["rms_dbfs"].notna().all()
    assert (tmp_path / "run" / "results.parquet").is_file()


def test_another_seed_makes_only_the_new_clips(first_run):
    folder, arguments, _ = first_run
    more = [a for a in arguments if a != "--report"]
    more[more.index("--seed") + 1] = "0:4"
    done = run_command(*more, cwd=folder)
    assert "9 made, 27 already there, 0 failed, of 36 clips" in done.stderr


SHORT_CLIPS = ("sweep", *PROMPT, "--duration", "1", "--max-clips", "2")


def start_and_wait_for(clips, folder):
    process = subprocess.Popen(
        [MUSICGEN_LAB, *SHORT_CLIPS, "--seed", "0:400", "--out", folder],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while len(list(folder.glob("clips/*.json"))) < clips:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)  # the cores are its own
    return process


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(tmp_path):
    process = start_and_wait_for(3, tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    last = errors.strip().splitlines()[-1]
    assert re.search(
        r"error: stopped; \d+ of 400 clips are made and kept(, \d+ s of sound in unfinished clips "
        r"are lost)?: run it again to make the rest",
        last,
    )
    assert "Traceback" not in errors


def test_a_killed_command_keeps_its_finished_clips(tmp_path):
    process = start_and_wait_for(3, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = set(Results.open(tmp_path).frame["key"])
    assert len(made) >= 3
    smaller = [*SHORT_CLIPS, "--seed", "0:6", "--out", str(tmp_path)]
    assert not cli.main(smaller, standalone_mode=False)  # the exit code: 0 or none
    assert made <= set(Results.open(tmp_path).frame["key"])
