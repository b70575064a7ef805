"""The notebook for Modal runs against the deployed service: plan, run, resume, costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from modal.client import _Client

from musicgen_lab.notebook import run_notebook
from tests.modal_server.deployed import deploy, use
from tests.modal_server.server import modal_server

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "remote_modal.ipynb"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        deploy(server)
        yield server


def test_it_plans_with_costs_runs_resumes_and_says_what_it_cost(server, tmp_path, monkeypatch):
    use(server, monkeypatch)
    given = {"duration": 1, "temperatures": [0.7, 1.3], "cfg_coefs": [3], "seeds": 1}
    done = run_notebook(NOTEBOOK, tmp_path, {**given, "run_folder": str(tmp_path / "run")})
    _Client._set_env_client(None)
    said = [json.dumps(cell.get("outputs", [])) for cell in done.cells]
    plan, resumed = (text for text in said if "already there" in text)
    assert "to make         2" in plan  # the cost too, where the model and the GPU are known
    assert "already there   2" in resumed
    (costs,) = (text for text in said if "cost_usd" in text)
    assert "gpu_s" in costs
    assert said[-1].count("<audio controls") == 2
