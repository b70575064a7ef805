"""`models`: what is on this machine, also where a part of it is damaged."""

from __future__ import annotations

import shutil

import pytest

from musicgen_lab.models.checksums import write_checksums
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from tests.support.command import run_here


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Three models as `prepare` has written them."""
    monkeypatch.setenv("MUSICGEN_LAB_MODELS", str(tmp_path))
    for name in "abc":
        write_checksums(shutil.copytree(EMBEDDED_FOLDER, tmp_path / f"{name}@1"))
    return tmp_path


@pytest.mark.parametrize("file", ["config.json", "lm.safetensors", "text_encoder/tokenizer.json"])
def test_a_damaged_model_is_one_line_and_the_others_are_listed(prepared, file):
    damaged = prepared / "b@1" / file
    damaged.write_bytes(damaged.read_bytes()[:-20])

    done = run_here("models", "list")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3  # the embedded one too
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {damaged} is ")
