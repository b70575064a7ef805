"""Models are found by name, without torch, and a resolved name carries the weights' revision."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest
import torch

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.config import load_config
from musicgen_lab.models.hub import PINNED
from musicgen_lab.models.locate import EMBEDDED_FOLDER, codebook_sizes, content_digest, locate
from tests.support.checkpoints import build_checkpoint
from tests.support.command import run_command


def test_the_embedded_model_keeps_its_revision_as_long_as_it_has_these_weights():
    """Its clips are stored under this name: other content needs another EMBEDDED_REVISION."""
    source = locate("demo")
    assert source.folder == EMBEDDED_FOLDER
    assert source.identity == "demo@4f7a20dcd779"
    assert content_digest(EMBEDDED_FOLDER).startswith("388be1cf238e")
    assert locate(source.identity) == source


def test_the_codebooks_of_prepared_models_are_known_without_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("MUSICGEN_LAB_MODELS", str(tmp_path))
    identity = locate("demo").identity
    assert codebook_sizes([identity, f"facebook/musicgen-large@{COMMIT}"]) == {identity: 512}


def test_a_folder_in_the_current_one_never_takes_the_place_of_the_embedded_model(
    tmp_path, monkeypatch
):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)

    assert locate("demo").folder == EMBEDDED_FOLDER
    with pytest.raises(ModelUnavailable, match=r"demo holds no model"):
        locate("./demo")


def test_another_revision_of_the_embedded_model_is_refused():
    with pytest.raises(ModelUnavailable, match=r"this installation embeds demo@\w+, not demo@old"):
        locate("demo@old")


def test_a_folder_is_identified_by_its_content_wherever_it_is(tmp_path):
    first = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "a" / "mine")
    second = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "b" / "mine")
    assert locate(str(first)).identity == locate(str(second)).identity
    (second / "MODEL_CARD.md").write_text("# another")
    (second / "text_encoder" / ".DS_Store").touch()
    (second / "notes.txt").touch()
    assert locate(str(first)).identity == locate(str(second)).identity
    weights = second / "lm.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert locate(str(first)).identity != locate(str(second)).identity


@pytest.mark.parametrize("name", ["config.json", "text_encoder/tokenizer.json"])
def test_a_models_configuration_and_tokenizer_are_part_of_its_identity(tmp_path, name):
    folder = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "mine")
    before = locate(str(folder)).identity
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert locate(str(folder)).identity != before


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "state_dict.bin").touch()
    with pytest.raises(ModelUnavailable, match=r"holds no model: .* compression_state_dict.bin"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        *("nope", "musicgen-small", "a/b/c", "./nowhere", "/nowhere", "~/nowhere", "../nowhere"),
        *("a" * 300, "a/" + 300 * "b", "a/b\0c", "a/b--c", "a/.b"),
    ],
)
def test_the_error_for_an_unknown_name_lists_the_available_ones(name):
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
from musicgen_lab.conversion.prepare import prepare
from musicgen_lab.models.locate import locate
from musicgen_lab.errors import ModelUnavailable
try:
    source = locate("facebook/musicgen-small")
    print(source.identity, prepare(source).name)
except ModelUnavailable as error:
    print(error)
"""


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_an_unreachable_hub_model_is_one_clear_line(tmp_path, revision):
    code = PREPARE.replace("musicgen-small", f"musicgen-small{revision}")
    done = run_with_cache(code, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    missing = "facebook/musicgen-small is not on this machine and the Hugging Face"
    assert done.stdout.startswith(missing)
    assert "give the path of a checkpoint folder" in done.stdout
    assert done.stdout.count("\n") == 1 and "Retrying" not in done.stderr


def cache_checkpoint(cache):
    """Put a checkpoint into the Hub's cache as if it had been fetched, and return its path."""
    return build_checkpoint(cache / "hub" / "models--facebook--musicgen-small/snapshots" / COMMIT)


PREPARE_COMMIT = f"""
from musicgen_lab.conversion.prepare import prepare
from musicgen_lab.models.locate import locate
prepare(locate("facebook/musicgen-small@{COMMIT}"), on_stage=lambda stage: print(stage, flush=True))
"""
HANG = """
import time
import musicgen_lab.conversion.convert as convert
def open_once(folder):
    print("written", flush=True)
    time.sleep(600)
convert._open_once = open_once
"""


def start(code, cache, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(cache), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_processes_that_want_the_same_model_one_fetches_and_converts_it(tmp_path):
    cache_checkpoint(tmp_path)
    models = {"MUSICGEN_LAB_MODELS": str(tmp_path / "models")}
    processes = [start(PREPARE_COMMIT, tmp_path, **models) for _ in range(2)]
    printed = sorted(process.communicate()[0].splitlines() for process in processes)
    name = f"facebook/musicgen-small@{COMMIT}"
    assert printed == [[], [f"fetching {name}", f"converting {name}"]]
    assert [process.returncode for process in processes] == [0, 0]


def test_a_conversion_that_was_killed_leaves_nothing_behind_once_the_next_is_done(tmp_path):
    cache_checkpoint(tmp_path)
    models = {"MUSICGEN_LAB_MODELS": str(tmp_path / "models")}
    with start(HANG + PREPARE_COMMIT, tmp_path, **models) as process:
        while process.stdout.readline() != "written\n":
            assert process.poll() is None
        process.kill()
    assert [path.name[0] for path in (tmp_path / "models").iterdir()] == ["."]
    run_with_cache(PREPARE_COMMIT, tmp_path, **models).check_returncode()
    left = [path.name for path in (tmp_path / "models").iterdir()]
    assert left == [f"facebook--musicgen-small@{COMMIT}"]


def test_a_damaged_model_is_made_again_by_the_command_that_its_error_names(tmp_path):
    cache_checkpoint(tmp_path)
    models = {"MUSICGEN_LAB_MODELS": str(tmp_path / "models"), "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, "HF_HOME": str(tmp_path), **models}
    name = f"facebook/musicgen-small@{COMMIT}"
    run_command("models", "prepare", name, env=env).check_returncode()
    (folder,) = (tmp_path / "models").iterdir()
    weights = folder / "lm.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = run_command("models", "verify", name, env=env)
    assert damaged.returncode == 2 and "prepare the model again" in damaged.stderr

    done = run_command("models", "prepare", name, env=env)

    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    assert weights.read_bytes() == whole
    assert run_command("models", "verify", name, env=env).returncode == 0


def test_a_commit_is_taken_at_its_word_until_it_is_fetched(tmp_path):
    code = f"""
from musicgen_lab.models.locate import find_prepared, locate
source = locate("facebook/musicgen-small@{COMMIT}")
print(source.identity, find_prepared(source.identity))
"""
    printed = run_with_cache(code, tmp_path, HF_ENDPOINT="http://127.0.0.1:9").stdout
    assert printed == f"facebook/musicgen-small@{COMMIT} None\n"


def test_the_text_encoder_and_the_codec_come_from_pinned_commits_and_their_checksums_are_kept(
    tmp_path,
):
    """As with the released checkpoints, which only name them."""
    checkpoint = cache_checkpoint(tmp_path)
    environment = {"MUSICGEN_LAB_MODELS": str(tmp_path / "models"), "HF_HUB_OFFLINE": "1"}
    run_with_cache(PREPARE_COMMIT, tmp_path, **environment).check_returncode()
    (whole,) = (tmp_path / "models").iterdir()
    for name, part in (("t5-base", "text_encoder"), ("facebook/encodec_32khz", "codec")):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(whole / part, repository / "snapshots" / PINNED[name])
    torch.save({"pretrained": "facebook/encodec_32khz"}, checkpoint / "compression_state_dict.bin")
    shutil.rmtree(checkpoint / "text_encoder")
    shutil.rmtree(whole)

    run_with_cache(PREPARE_COMMIT, tmp_path, **environment).check_returncode()

    source = load_config(whole).source
    assert source.revision == COMMIT and "state_dict.bin" in source.sha256
    for name, part in (("t5-base", "text_encoder"), ("facebook/encodec_32khz", "codec")):
        assert (source.parts[part].name, source.parts[part].revision) == (name, PINNED[name])
        fetched = tmp_path / "hub" / f"models--{name.replace('/', '--')}/snapshots" / PINNED[name]
        digest = hashlib.sha256((fetched / "model.safetensors").read_bytes()).hexdigest()
        assert source.parts[part].sha256 == {"model.safetensors": digest}


def test_a_hub_model_that_was_fetched_before_is_prepared_offline_and_its_licence_is_shown_once(
    tmp_path,
):
    commit, repository = COMMIT, cache_checkpoint(tmp_path).parents[1]
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
