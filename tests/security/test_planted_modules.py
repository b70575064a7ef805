"""Nothing is imported from a folder of clips, nor from the folder that a command is called in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import run_command
from tests.support.report_runs import make_run

MODULES = (
    "IPython", "ipykernel", "json", "librosa", "matplotlib", "musicgen_lab", "numba", "numpy",
    "pandas", "random", "scipy", "sitecustomize", "soundfile", "threadpoolctl",
)  # fmt: skip
CLIPS = 40  # enough for a second measuring worker
MARK = "import pathlib; pathlib.Path(__file__).with_suffix('.imported').touch()\n"


def plant(folder):
    for name in MODULES:
        (folder / f"{name}.py").write_text(MARK)


def imported(*folders):
    return [str(path) for folder in folders for path in folder.rglob("*.imported")]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("clips") / "run", temperature=[0.5, 1], seed=range(20))


def test_a_report_imports_nothing_from_the_run_or_from_the_current_folder(clips, tmp_path, tried):
    current = tmp_path / "current"
    current.mkdir()
    plant(clips)
    plant(current)
    (clips / "matplotlibrc").write_text("figure.figsize: 1, 1\n")

    done = run_command("report", clips, cwd=current)

    assert done.returncode == 0, done.stderr
    tried("planted modules", 2 * len(MODULES), imported(clips, current))


def test_measuring_workers_import_nothing_from_the_current_folder(clips, tmp_path, tried):
    plant(tmp_path)
    program = (
        "import sys; from pathlib import Path; from musicgen_lab.runs.measuring import *\n"
        "paths = sorted(Path(sys.argv[1]).glob('*.wav'))\n"
        "print(len(measure_files('signature', paths, workers=2)))"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", program, clips / "clips"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == f"{CLIPS}\n", done.stderr
    tried("planted modules", len(MODULES), imported(tmp_path))
