"""Every notebook runs from top to bottom, is thin, and is kept without what it printed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from musicgen_lab import MusicGenLabError
from musicgen_lab.report.notebook import run_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "musicgen_lab" / "report" / "notebooks"
ALL = sorted([*NOTEBOOKS.glob("*.ipynb"), *REPORTS.glob("*.ipynb")])
TINY = {"duration": 1, "temperatures": [0.7, 1.3], "cfg_coefs": [1, 3]}


def texts(notebook):
    """Return all that the notebook's outputs say."""
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells])


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_notebooks_are_thin_and_have_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            nodes = list(ast.walk(ast.parse(cell.source)))
            defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            assert not any(isinstance(node, defined) for node in nodes)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_notebooks_are_written_as_their_editor_writes_them(path):
    """So that a change of one cell is a change of its lines alone."""
    notebook = nbformat.read(path, as_version=4)
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook, indent=1) + "\n"
    assert [cell.metadata for cell in notebook.cells if cell.metadata] == [{"tags": ["parameters"]}]


def test_explore_runs_on_the_embedded_model(tmp_path):
    run = tmp_path / "run"
    done = run_notebook(NOTEBOOKS / "explore.ipynb", tmp_path, {**TINY, "run_folder": str(run)})
    said = texts(done)
    assert said.count("<audio controls") == 4
    assert "Heatmap of brightness" in said
    assert "Mel spectrograms of two clips" in said
    assert len(list((run / "clips").glob("*.wav"))) == 4


def test_the_study_runs_with_one_temperature_and_features_as_text(tmp_path):
    given = {**TINY, "seeds": 3, "run_folder": str(tmp_path / "run")}
    given |= {"temperatures": 0.7, "features": "spectral_centroid_hz, rms_dbfs"}
    said = texts(run_notebook(NOTEBOOKS / "temperature_cfg.ipynb", tmp_path, given))
    assert "Effects with 95% intervals." in said
    assert "tests were performed on 2 features" in said


def test_blind_listening_finds_the_taste_of_simulated_listeners(tmp_path):
    given = {**TINY, "seeds": 3, "listeners": 4, "answers": 30, "taste": -8.0}
    given["run_folder"] = str(tmp_path / "run")
    said = texts(run_notebook(NOTEBOOKS / "blind_listening.ipynb", tmp_path, given))
    assert "These 4 listeners prefer a lower temperature:</strong> a clip at 0.7 is prefer" in said
    assert "120 answers of 4 listeners" in said
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "These 4 listeners prefer a lower temperature" in report


@pytest.fixture
def shell():
    """What runs cells, in this process and in a history of its own."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


MISTAKES = {
    "temperaturs = [0.7]": "no parameter 'temperaturs' (did you mean temperatures?)",
    'temperatures = "0.7, 1.0"': "temperature must be a number from 0 to 10, got '0.7, 1.0'",
    "cfg_coefs = []": "cfg_coef needs at least one value",
    "duration = 345": "duration must be a number from 1 to 300 seconds, got 345",
    'backend_url = "cloud"': "no backend is called 'cloud'",
}


@pytest.mark.parametrize("name", ["blind_listening", "explore", "temperature_cfg", "remote_modal"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistaken_parameter_ends_the_notebook_in_its_first_cell(shell, name, mistake):
    defaults, first, *_ = (
        cell.source
        for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
        if cell.cell_type == "code"
    )
    shell.run_cell(defaults, store_history=True)
    shell.run_cell(f"# Parameters\n{mistake}\n", store_history=True)
    error = shell.run_cell(first, store_history=True).error_in_exec
    assert isinstance(error, MusicGenLabError)
    assert MISTAKES[mistake] in str(error)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_what_a_notebook_makes_stays_in_the_folder_that_it_runs_in(path):
    defaults = {}
    (cell,) = (c for c in nbformat.read(path, as_version=4).cells if c.metadata)
    exec(cell.source, defaults)
    folder = Path(defaults["run_folder"])
    assert not folder.is_absolute() and ".." not in folder.parts
