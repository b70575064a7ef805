"""Models are found by name, without torch, and a resolved name carries the weights' revision."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from musicgen_lab.engine.source import EMBEDDED_FOLDER, locate
from musicgen_lab.errors import ModelUnavailable
from tests.support.checkpoints import build_checkpoint
from tests.support.command import run_command


def test_the_embedded_model_is_there_and_its_revision_is_its_content():
    source = locate("demo")
    assert source.folder == EMBEDDED_FOLDER
    assert source.identity == f"demo@{source.revision}"
    assert locate(source.identity) == source


def test_another_revision_of_the_embedded_model_is_refused():
    with pytest.raises(ModelUnavailable, match=r"this installation embeds demo@\w+, not demo@old"):
        locate("demo@old")


def test_a_folder_is_named_by_its_content_wherever_it_lies(tmp_path):
    first = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "a" / "mine")
    second = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "b" / "mine")
    assert locate(str(first)).identity == locate(str(second)).identity
    weights = second / "lm.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert locate(str(first)).identity != locate(str(second)).identity


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "state_dict.bin").touch()
    with pytest.raises(ModelUnavailable, match=r"holds no model: .* compression_state_dict.bin"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", ["nope", "musicgen-small", "a/b/c", "./nowhere", "/nowhere"])
def test_an_unknown_name_says_which_there_are(name):
    with pytest.raises(ModelUnavailable, match=r"use demo, facebook/musicgen-small.* or the path"):
        locate(name)


def run_with_cache(code, cache, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


PREPARE = """
from tests.support.checkpoints import build_checkpoint
from musicgen_lab.engine.source import locate
from musicgen_lab.errors import ModelUnavailable
try:
    source = locate("facebook/musicgen-small")
    print(source.identity, source.prepare().name)
except ModelUnavailable as error:
    print(error)
"""


def test_a_hub_model_out_of_reach_is_one_clear_line(tmp_path):
    printed = run_with_cache(PREPARE, tmp_path, HF_ENDPOINT="http://127.0.0.1:9").stdout
    assert printed.startswith("facebook/musicgen-small is not on this machine and the Hugging Face")
    assert "give the path of a checkpoint folder" in printed
    assert printed.count("\n") == 1


def test_a_hub_model_that_was_fetched_before_is_prepared_offline_and_its_licence_is_told_once(
    tmp_path,
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--facebook--musicgen-small"
    build_checkpoint(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "MUSICGEN_LAB_MODELS": str(tmp_path / "m")}
    done = run_with_cache(PREPARE + PREPARE, tmp_path, **environment)
    name = f"facebook--musicgen-small@{commit}"
    assert done.stdout.splitlines() == [f"facebook/musicgen-small@{commit} {name}"] * 2
    assert done.stderr.count("CC-BY-NC 4.0 (no commercial use)") == 1
    shutil.rmtree(repository)  # the prepared model is all that it takes from now on
    again = run_with_cache(PREPARE, tmp_path, **environment)
    assert again.stdout.splitlines() == [f"facebook/musicgen-small@{commit} {name}"]
    listed = run_command("models", "list", env={**os.environ, **environment}).stdout
    assert [line.split("@")[0] for line in listed.splitlines()] == [
        "demo",
        "facebook/musicgen-small",
    ]
    assert "CC-BY-NC-4.0" in listed
