"""Every notebook runs from top to bottom, is thin, and is kept without what it printed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nbformat
import pytest

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
    assert "Heatmap of spectral centroid" in said
    assert "B \\u2212 A" in said or "Mel spectrograms of two clips" in said
    assert len(list((run / "clips").glob("*.wav"))) == 4


def test_the_study_of_temperature_and_cfg_runs_on_the_embedded_model(tmp_path):
    given = {**TINY, "seeds": 3, "run_folder": str(tmp_path / "run")}
    said = texts(run_notebook(NOTEBOOKS / "temperature_cfg.ipynb", tmp_path, given))
    assert "Effects with 95% intervals over seeds" in said
    assert "questions were asked, of 4 features" in said
