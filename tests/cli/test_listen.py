"""`musicgen-lab listen` says what it lacks before it reads a run."""

from __future__ import annotations

import importlib.util

import pytest

from musicgen_lab.cli.listen import listen
from musicgen_lab.errors import PackageMissing
from tests.support.report_runs import make_run


def test_without_the_packages_of_a_server_it_says_what_to_install(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", seed=[0, 1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match=r"needs starlette, uvicorn, not installed here: pip"):
        listen.main([str(run)], standalone_mode=False)
    assert not (run / "answers").exists()
