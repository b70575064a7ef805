"""Checkpoints of strangers: what is not what it claims is refused by name, before it costs."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
import types
import zipfile

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from musicgen_lab.conversion.convert import convert
from musicgen_lab.conversion.xp_config import read_xp_config
from musicgen_lab.engine.model import Model
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint
from musicgen_lab.models.checksums import check_headers, verify
from musicgen_lab.models.locate import locate
from tests.support.checkpoints import build_checkpoint

LM, CODEC = "state_dict.bin", "compression_state_dict.bin"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_checkpoint(tmp_path_factory.mktemp("built") / "checkpoint")


@pytest.fixture
def checkpoint(built, tmp_path):
    return shutil.copytree(built, tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def prepared(built, tmp_path_factory):
    return convert(built, tmp_path_factory.mktemp("prepared") / "model")


def edit(path, change):
    """Change a package of torch's in place; `change` takes its configuration and its state."""
    package = torch.load(path, weights_only=True)
    config, state = yaml.safe_load(package["xp.cfg"]), package["best_state"]
    change(config, state)
    torch.save({"xp.cfg": yaml.safe_dump(config), "best_state": state}, path)


def refused(checkpoint, out, match):
    with pytest.raises(ModelUnavailable, match=match) as error:
        convert(checkpoint, out)
    assert str(error.value).isprintable()
    assert not out.exists()


def rename_one(state, name):
    state[f"{name[:-1]}{'x' if name[-1] != 'x' else 'y'}"] = state.pop(name)


def test_a_tensor_that_is_missing_or_renamed_is_refused_wherever_it_is(built, tmp_path, tried):
    taken = []
    cases = []
    for file in (LM, CODEC):
        names = sorted(torch.load(built / file, weights_only=True)["best_state"])
        not_needed = ("encoder.model", "_codebook", "embed_tokens")  # the last one is tied
        names = [name for name in names if not any(part in name for part in not_needed)]
        cases += [(file, name) for name in random.Random(1).sample(names, 15)]
    for number, (file, name) in enumerate(cases):
        copy = shutil.copytree(built, tmp_path / str(number))
        drop = number % 2
        edit(copy / file, lambda _, s: s.pop(name) if drop else rename_one(s, name))  # noqa: B023
        try:
            convert(copy, tmp_path / "model")
            taken.append((file, name))
        except ModelUnavailable:
            shutil.rmtree(copy)
    tried("tensors missing or renamed", len(cases), taken)


def test_a_tensor_of_the_text_encoders_own_file_is_refused_too(checkpoint, tmp_path, tried):
    edit(checkpoint / LM, lambda _, state: [state.pop(n) for n in list(state) if ".t5." in n])
    path = checkpoint / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    taken = []
    for name in tensors:
        changed = dict(tensors)
        rename_one(changed, name)
        save_file(changed, path, metadata={"format": "pt"})
        try:
            convert(checkpoint, tmp_path / "model")
            taken.append(name)
        except ModelUnavailable:
            continue
    tried("tensors missing or renamed", len(tensors), taken)


@pytest.mark.parametrize("files", [["tokenizer.json", "spiece.model"], ["model.safetensors"]])
def test_a_text_encoder_that_lacks_files_is_refused(checkpoint, tmp_path, files):
    edit(checkpoint / LM, lambda _, state: [state.pop(n) for n in list(state) if ".t5." in n])
    for file in files:
        (checkpoint / "text_encoder" / file).unlink(missing_ok=True)

    missing = (
        "has no tokenizer: .*hf download" if files[0] != "model.safetensors" else "has no model"
    )
    refused(checkpoint, tmp_path / "model", missing)


def test_a_tokenizer_without_words_is_refused_where_it_is_made_and_where_it_is_used(
    checkpoint, prepared, tmp_path
):
    from transformers import T5Tokenizer

    T5Tokenizer().save_pretrained(tmp_path / "blank")  # what transformers makes up without files
    blank = tmp_path / "blank" / "tokenizer.json"
    folder = shutil.copytree(prepared, tmp_path / "folder")
    (folder / "checksums.json").unlink()
    shutil.copy(blank, folder / "text_encoder")
    with pytest.raises(ModelUnavailable, match="cannot tell words apart"):
        Model(folder)

    shutil.copy(blank, checkpoint / "text_encoder")

    refused(checkpoint, tmp_path / "model", "cannot tell words apart|text encoder knows")


def test_references_in_an_exported_codec_are_resolved(checkpoint, prepared, tmp_path):
    def refer(config, state):
        config["sample_rate"], config["encodec"]["sample_rate"] = 32000, "${sample_rate}"
        config["encodec"]["causal"] = config["seanet"]["causal"]
        config["seanet"]["causal"] = "${encodec.causal}"
        config["logging"] = {"to": "${oc.env:SECRET}"}

    edit(checkpoint / CODEC, refer)

    folder = convert(checkpoint, tmp_path / "model")

    assert (folder / "codec/config.json").read_text() == (
        prepared / "codec/config.json"
    ).read_text()


def test_a_checkpoint_of_audiocrafts_trainer_is_told_with_what_to_type(
    checkpoint, tmp_path, monkeypatch
):
    config = types.new_class(
        "DictConfig", exec_body=lambda body: body.update(__module__="omegaconf")
    )
    with monkeypatch.context() as patched:  # as pickle finds the class while it is written
        patched.setitem(sys.modules, "omegaconf", types.SimpleNamespace(DictConfig=config))
        torch.save({"xp.cfg": config()}, checkpoint / LM)

    refused(checkpoint, tmp_path / "model", r"audiocraft's trainer.*export_lm")

    trainer = tmp_path / "trainer"
    trainer.mkdir()
    (trainer / "checkpoint.th").touch()
    with pytest.raises(ModelUnavailable, match="export_lm"):
        locate(str(trainer))


def test_layers_of_lora_are_told_with_what_to_type(checkpoint, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").touch()
    with pytest.raises(ModelUnavailable, match="merge_and_unload"):
        locate(str(adapter))

    name = "transformer.layers.0.linear1.lora_A.default.weight"
    edit(checkpoint / LM, lambda _, state: state.update({name: torch.zeros(2, 2)}))

    refused(checkpoint, tmp_path / "model", "LoRA layers: merge them")


ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
REFERENCES = "rvq: ${a}\n" + "\n".join(
    f"{a}: ['${{{b}}}', '${{{b}}}', '${{{b}}}', '${{{b}}}']"
    for a, b in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
) + "\nn: 1"  # fmt: skip
BOMBS = {
    "aliases": f"{ALIASES}\nrvq: *i",
    "references": REFERENCES,
    "a circle of references": "rvq: ${seanet}\nseanet: ${rvq}",
    "a circle of aliases": "rvq: &a [*a]",
    "depth": "rvq: " + "[" * 5000 + "]" * 5000,
    "size": "rvq: [" + "x," * 400_000 + "]",
    "an unknown reference": "rvq: ${nothing.there}",
    "no text": b"rvq",
    "no mapping": "- rvq",
}


def test_a_configuration_that_stands_for_more_than_it_holds_is_refused(tried):
    taken = []
    for name, text in BOMBS.items():
        try:
            read_xp_config(text)
            taken.append(name)
        except ValueError:
            continue
    tried("configurations that explode", len(BOMBS), taken)


def test_absurd_sizes_are_refused_before_anything_is_built(built, tmp_path, tried):
    changes = {
        "codebooks": (LM, lambda c, s: c["codebooks_pattern"]["delay"].pop("delays")
                      and c["transformer_lm"].update(n_q=10**12)),
        "layers": (LM, lambda c, s: c["transformer_lm"].update(num_layers=10**12)),
        "width": (LM, lambda c, s: c["transformer_lm"].update(dim=10**9)),
        "filters": (CODEC, lambda c, s: c["seanet"].update(n_filters=10**6, lstm=0)),
        "ratios": (CODEC, lambda c, s: c["seanet"].update(ratios=[8] * 5000)),
        "residual layers": (CODEC, lambda c, s: c["seanet"].update(n_residual_layers=10**9)),
        "lstm layers": (CODEC, lambda c, s: c["seanet"].update(lstm=10**9)),
        "no codes": (CODEC, lambda c, s: c["rvq"].update(bins=0)),
        "no numbers": (CODEC, lambda c, s: c["encodec"].update(sample_rate="x")),
    }  # fmt: skip
    taken = []
    for name, (file, change) in changes.items():
        copy = shutil.copytree(built, tmp_path / name)
        edit(copy / file, change)
        try:
            convert(copy, tmp_path / "model")
            taken.append(name)
        except ModelUnavailable:
            shutil.rmtree(copy)
    copy = shutil.copytree(built, tmp_path / "t5")
    path = copy / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": 1_000_000}))
    refused(copy, tmp_path / "model", "num_layers")
    tried("absurd sizes", len(changes) + 1, taken)


def test_tensors_that_claim_more_than_the_file_holds_are_refused(checkpoint, tmp_path, tried):
    path = checkpoint / LM
    package = torch.load(path, weights_only=True)
    name = "out_norm.weight"
    package["best_state"][name] = torch.zeros(1).expand(10**12)
    torch.save(package, path)
    refused(checkpoint, tmp_path / "model", "claims .* numbers that it does not hold")

    package["best_state"][name] = torch.zeros(64)
    torch.save(package, path)
    squeezed = tmp_path / "squeezed"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(squeezed, "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
        packed.writestr("archive/data/999", bytes(10**8))
    squeezed.replace(path)
    refused(checkpoint, tmp_path / "model", "claim more than the")

    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(100_000_000)
    with pytest.raises(ModelUnavailable, match="is no header"):
        Checkpoint(huge)
    tried("files that claim too much", 3)


def test_every_bit_that_changes_in_a_prepared_model_is_found(prepared, tmp_path, tried):
    folder = shutil.copytree(prepared, tmp_path / "model")
    assert verify(folder) >= 8
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chance, unseen, seen_at_opening = random.Random(2), [], 0
    for _ in range(60):
        path = chance.choice(files)
        content = bytearray(path.read_bytes())
        position = chance.randrange(len(content))
        content[position] ^= 1 << chance.randrange(8)
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            verify(folder)
            unseen.append((path.name, position))
        except ModelUnavailable:
            pass
        try:
            check_headers(folder)
        except ModelUnavailable:
            seen_at_opening += 1
        path.write_bytes(before)
    print(f"{seen_at_opening} of 60 flipped bits are seen when the model is opened")
    tried("flipped bits in a prepared model", 60, unseen)


def test_checksums_never_lead_out_of_their_folder(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "model")
    checksums = json.loads((folder / "checksums.json").read_text())
    checksums["files"]["../secret"] = checksums["files"]["config.json"]
    (folder / "checksums.json").write_text(json.dumps(checksums))

    with pytest.raises(ModelUnavailable, match="outside its folder"):
        verify(folder)
