"""The wheel holds all it needs: its notebook, its page template, and its embedded model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from musicgen_lab.models.locate import EMBEDDED_FOLDER, locate
from tests.support.environments import copy_compiled_package

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty environment with the wheel in it; what it depends on is borrowed from this one."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv, which builds the wheel, is not on the PATH")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv, "build", "--wheel", "--quiet", "--out-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    venv = folder / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True
    )
    (site,) = venv.glob("lib/*/site-packages")
    copy_compiled_package(site)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return venv


def run(venv, *command):
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["JUPYTER_PATH"] = f"{sysconfig.get_path('data')}/share/jupyter"  # borrowed too
    done = subprocess.run(
        [venv / "bin" / command[0], *command[1:]],
        cwd=venv,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_is_the_wheels_and_its_embedded_model_is_whole(installed):
    code = (
        "import musicgen_lab; from musicgen_lab.models.locate import locate;"
        "print(musicgen_lab.__file__, locate('demo').identity)"
    )
    path, identity = run(installed, "python", "-c", code).split()
    assert Path(path).is_relative_to(installed)
    assert identity == locate("demo").identity


def test_it_makes_a_sweep_and_its_report(installed):
    printed = run(
        installed, "musicgen-lab", "sweep", "--prompt", "calm guitar", "--duration", "1",
        "--temperature", "0.7,1", "--out", "run", "--report",
    )  # fmt: skip
    report = installed / printed.splitlines()[-1]
    assert report.name == "report.html"
    assert report.stat().st_size > 10_000


def test_nothing_but_the_package_without_the_training_recipe_is_installed(installed):
    (site,) = installed.glob("lib/*/site-packages")
    names = {path.name.split("-")[0] for path in site.iterdir() if not path.name.startswith("_")}
    assert names == {"musicgen_lab", "borrowed.pth"}
    assert not (site / "musicgen_lab" / "demo").exists()  # the training recipe
    shipped = site / "musicgen_lab" / "models" / "embedded"
    assert {p.name for p in shipped.rglob("*")} == {p.name for p in EMBEDDED_FOLDER.rglob("*")}
