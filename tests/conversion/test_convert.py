"""Checkpoints are converted to model folders atomically, and damage is reported in one line."""

import json
import os
import pickle
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from musicgen_lab.conversion.convert import convert
from musicgen_lab.conversion.prepare import prepare
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.config import is_model_folder, load_config
from musicgen_lab.models.locate import locate
from tests.support.cases import PROMPTS, greedy, sampled, tokens_of
from tests.support.reference import needs_audiocraft


@pytest.fixture
def checkpoint(mono, tmp_path):
    return shutil.copytree(mono.checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def folder(mono, tmp_path):
    """A model folder without checksums, so that its other checks see what is done to it."""
    without = shutil.ignore_patterns("checksums.json")
    return shutil.copytree(mono.folder, tmp_path / "model", ignore=without)


def edit_config(checkpoint, old, new, file="state_dict.bin"):
    package = torch.load(checkpoint / file, weights_only=True)
    assert old in package["xp.cfg"]
    package["xp.cfg"] = package["xp.cfg"].replace(old, new)
    torch.save(package, checkpoint / file)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_the_folder_says_where_it_came_from(mono):
    config = load_config(mono.folder)

    assert config.source.name == "checkpoint"
    assert set(config.source.sha256) == {"state_dict.bin", "compression_state_dict.bin"}
    assert config.dtype == "float16"
    assert config.delays == [0, 1, 2, 3]
    assert (config.sample_rate, config.frame_rate) == (32_000, 50.0)


def test_the_requested_precision_is_the_one_written(mono, tmp_path):
    folder = convert(mono.checkpoint, tmp_path / "model", dtype="float32", name="a", license="MIT")

    config, checkpoint = open_checkpoint(folder)
    assert (config.dtype, config.source.name, config.license) == ("float32", "a", "MIT")
    assert checkpoint["heads.weight"].dtype == torch.float32
    request = sampled()
    # Two new engines: the shared one may have encoded the prompt with another number of threads.
    ours, theirs = (
        Engine.open(each, EngineOptions("cpu", "float32", 1)) for each in (folder, mono.folder)
    )
    assert torch.equal(tokens_of(ours, request), tokens_of(theirs, request))


def test_the_released_models_licence_is_known(mono, tmp_path):
    folder = convert(mono.checkpoint, tmp_path / "model", name="facebook/musicgen-small")

    assert load_config(folder).license == "CC-BY-NC-4.0"


@needs_audiocraft
def test_weights_outside_float16_give_audiocrafts_tokens(checkpoint, tmp_path):
    from musicgen_lab.reference.engine import ReferenceEngine

    path = checkpoint / "state_dict.bin"
    package = torch.load(path, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in package["best_state"].items():
        noise = 1e-4 * torch.randn(tensor.shape, generator=generator)
        package["best_state"][name] = tensor.float() + noise
    torch.save(package, path)
    engine = Engine.open(
        convert(checkpoint, tmp_path / "model"), EngineOptions(dtype="float32", max_clips=1)
    )
    request = greedy(duration=3.0)

    theirs = ReferenceEngine(checkpoint, "cpu").generate_tokens(request)[0]

    assert engine.config.dtype == "float32"
    assert torch.equal(tokens_of(engine, request), theirs)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny MusicGen in transformers' format, and the model that it was saved from."""
    from transformers import (
        AutoTokenizer,
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )

    from tests.support.checkpoints import build_checkpoint

    root = tmp_path_factory.mktemp("transformers")
    text_folder = build_checkpoint(root / "other") / "text_encoder"
    text = T5Config.from_pretrained(text_folder)
    codec = EncodecConfig(
        sampling_rate=32_000,
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=64,
        target_bandwidths=[1.2],
        use_causal_conv=False,
        num_lstm_layers=1,
        use_conv_shortcut=False,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=64,
        num_hidden_layers=2,
        ffn_dim=96,
        num_attention_heads=4,
        hidden_size=48,
        num_codebooks=4,
        pad_token_id=64,
        bos_token_id=64,
        initializer_factor=0.2,
    )
    torch.manual_seed(0)
    config = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    model = MusicgenForConditionalGeneration(config).eval()
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_()
    folder = root / "published"
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    tokenizer.save_pretrained(folder)
    return folder, model, tokenizer


@pytest.mark.parametrize("prompt", PROMPTS[:2])
@pytest.mark.parametrize("cfg_coef", [1.0, 3.0])
def test_greedy_tokens_of_a_transformers_checkpoint_are_transformers(
    published, tmp_path, prompt, cfg_coef
):
    folder, model, tokenizer = published
    engine = Engine.open(
        convert(folder, tmp_path / "model"), EngineOptions(dtype="float32", max_clips=2)
    )
    request = greedy(prompt, duration=2.0, cfg_coef=cfg_coef)
    kept = []
    decode = model.audio_encoder.decode

    def keep(audio_codes, *args, **kwargs):
        kept.append(audio_codes[0, 0])
        return decode(audio_codes, *args, **kwargs)

    model.audio_encoder.decode = keep
    sound = model.generate(
        **tokenizer([prompt], return_tensors="pt"),
        do_sample=False,
        guidance_scale=cfg_coef,
        max_new_tokens=103,
    )
    model.audio_encoder.decode = decode

    (clip,) = engine.generate([request])

    assert torch.equal(tokens_of(engine, request), kept[0][:, :100])
    assert abs(clip.samples[0] - sound[0, 0, : 100 * 640].numpy()).max() < 1e-4


@pytest.mark.parametrize("file", ["state_dict.bin", "compression_state_dict.bin"])
@pytest.mark.parametrize("keep", [0, 3, 1000, 0.5, 0.99])
def test_a_truncated_checkpoint_is_reported_and_leaves_no_files(checkpoint, tmp_path, file, keep):
    path = checkpoint / file
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])

    with pytest.raises(ModelUnavailable, match=file):
        convert(checkpoint, tmp_path / "model")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint"]


def test_a_pickle_with_code_is_refused_and_not_run(checkpoint, tmp_path):
    bait = tmp_path / "ran"
    package = {"xp.cfg": "{}", "best_state": RunsCode(bait)}
    for write in (torch.save, lambda p, path: path.write_bytes(pickle.dumps(p))):
        write(package, checkpoint / "state_dict.bin")
        with pytest.raises(ModelUnavailable, match="nothing of it was executed"):
            convert(checkpoint, tmp_path / "model")
    assert not bait.exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("model: t5", "model: chroma_stem", "melody"),
        ("model: t5", "model: style", "style"),
        ("num_layers: 2", "num_layers: 3", "does not fit"),
        ("num_layers: 2", "num_layers: 100000000", "layers"),
        ("dim: 64", "dim: 1000000000", "cannot be served|does not fit"),
        ("num_heads: 4", "num_heads: 5", "not a multiple"),
        ("bias_attn: false", "bias_attn: true", "bias_attn"),
        ("norm_first: true", "norm_first: false", "norm_first"),
        ("positional_embedding: sin", "positional_embedding: rope", "rope"),
        ("modeling: delay", "modeling: parallel", "parallel"),
        ("lm_model: transformer_lm", "lm_model: transformer_lm_magnet", "magnet"),
        ("card: 256", "card: 512", "fit"),
        ("segment_duration: 30", "segment_duration: 10", "segment_duration=10, not 30"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(checkpoint, tmp_path, old, new, told):
    edit_config(checkpoint, old, new)

    with pytest.raises(ModelUnavailable, match=told):
        convert(checkpoint, tmp_path / "model")


def test_a_codec_of_another_kind_is_refused_by_name(checkpoint, tmp_path):
    edit_config(checkpoint, "quantizer: rvq", "quantizer: no_quant", "compression_state_dict.bin")

    with pytest.raises(ModelUnavailable, match="no_quant"):
        convert(checkpoint, tmp_path / "model")


def test_known_parts_that_are_only_named_and_cannot_be_fetched_are_told(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    known = {"pretrained": "facebook/encodec_32khz"}
    torch.save(known, checkpoint / "compression_state_dict.bin")
    with pytest.raises(ModelUnavailable, match=r"facebook/encodec_32khz .* connect once"):
        convert(checkpoint, tmp_path / "model")


def test_parts_of_other_names_are_asked_for_and_used_where_they_are_given(
    checkpoint, folder, tmp_path
):
    torch.save({"pretrained": "nobody/codec"}, checkpoint / "compression_state_dict.bin")
    with pytest.raises(ModelUnavailable, match=r"hf download nobody/codec --local-dir .*/codec`"):
        convert(checkpoint, tmp_path / "other")

    shutil.copytree(folder / "codec", checkpoint / "codec")

    assert (convert(checkpoint, tmp_path / "other") / "codec").is_dir()


def test_a_folder_without_a_checkpoint_is_reported(tmp_path):
    with pytest.raises(ModelUnavailable, match="holds no checkpoint"):
        convert(tmp_path, tmp_path / "model")


def test_a_model_that_is_prepared_already_is_not_taken_for_a_checkpoint(mono, tmp_path):
    with pytest.raises(ModelUnavailable, match="is prepared already; use it, or a copy"):
        convert(mono.folder, tmp_path / "model")


def test_melody_in_transformers_format_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "musicgen_melody"}))

    with pytest.raises(ModelUnavailable, match="melody"):
        convert(tmp_path, tmp_path / "model")


@pytest.mark.parametrize(
    "file",
    ["lm.safetensors", "codec/model.safetensors", "text_encoder/model.safetensors", "config.json"],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "huge header"])
def test_a_damaged_model_folder_is_reported_at_once(folder, file, damage):
    path = folder / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "garbage": b"\x00\x01garbage" * 50,
                "huge header": (2**62).to_bytes(8, "little") + content[8:],
            }[damage]
        )

    with pytest.raises(ModelUnavailable):
        Engine.open(folder, EngineOptions("cpu", max_clips=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 10**9),
        ("layers", 0),
        ("heads", -1),
        ("card", 10**12),
        ("delays", [3, 0]),
        ("delays", []),
        ("sample_rate", 0),
        ("frame_rate", 1e9),
        ("format_version", 2),
        ("dtype", "int8"),
        ("channels", 7),
        ("surprise", 1),
        ("layers", 3),
        ("card", 255),
    ],
)
def test_a_config_that_cannot_be_is_refused(folder, field, value):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))

    with pytest.raises(ModelUnavailable):
        Engine.open(folder, EngineOptions("cpu", max_clips=1))


def test_weights_of_another_shape_are_refused(folder):
    tensors = load_file(folder / "lm.safetensors")
    tensors["layers.1.ffn_in.weight"] = tensors["layers.1.ffn_in.weight"][:-1].clone()
    save_file(tensors, folder / "lm.safetensors")

    with pytest.raises(ModelUnavailable, match=r"layers\.1\.ffn_in\.weight"):
        Engine.open(folder, EngineOptions("cpu", max_clips=1))


def test_preparing_again_replaces_a_model_folder_but_nothing_else(mono, folder, tmp_path):
    convert(mono.checkpoint, folder, dtype="float32")
    assert load_config(folder).dtype == "float32"

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelUnavailable, match=r"more than a model folder \(thesis.txt\)"):
        convert(mono.checkpoint, other)
    assert (other / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["thesis.txt", "codec/thesis.txt", "sounds"])
def test_a_model_folder_with_files_of_others_in_it_is_not_replaced(mono, tmp_path, name):
    folder = shutil.copytree(mono.folder, tmp_path / "prepared")
    (folder / name).symlink_to("/")
    with pytest.raises(ModelUnavailable, match=f"more than a model folder .{name}"):
        convert(mono.checkpoint, folder)
    assert (folder / name).is_symlink()


def test_a_full_disk_is_one_error_that_says_what_to_do_and_leaves_nothing(mono, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # writing more fails
    try:
        with pytest.raises(ModelUnavailable, match=r"model cannot be written \(.*make room there"):
            convert(mono.checkpoint, tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_conversions_go_and_other_hidden_folders_stay(mono, tmp_path):
    out = tmp_path / "model"
    gone = [tmp_path / ".model.unfinished-a1", tmp_path / ".another.unfinished-b2"]
    kept = [tmp_path / ".model.backup", tmp_path / ".young.unfinished-c3"]
    for path in (*gone, *kept):
        path.mkdir()
        (path / "weights").write_bytes(b"")
    os.utime(gone[1], (0, 0))
    prepare(locate(str(mono.checkpoint)), out)
    assert is_model_folder(out)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def shards_of(state):
    """Write a state into two files and an index, as transformers did before safetensors."""
    names = sorted(state)
    halves = {"pytorch_model-00001-of-00002.bin": names[::2],
              "pytorch_model-00002-of-00002.bin": names[1::2]}  # fmt: skip
    weight_map = {name: file for file, part in halves.items() for name in part}
    files = {file: {name: state[name] for name in part} for file, part in halves.items()}
    return files, {"metadata": {}, "weight_map": weight_map}


@pytest.mark.parametrize("sharded", [False, True])
def test_a_transformers_checkpoint_of_pickles_is_found_and_gives_the_same_model(
    published, tmp_path, sharded
):
    folder = shutil.copytree(published[0], tmp_path / "pickled")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if sharded:
        files, index = shards_of(state)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        files = {"pytorch_model.bin": state}
    for file, part in files.items():
        torch.save(part, folder / file)

    source = locate(str(folder))
    pickled, plain = convert(source.fetch(), tmp_path / "a"), convert(published[0], tmp_path / "b")

    for part in ("lm.safetensors", "codec/model.safetensors", "text_encoder/model.safetensors"):
        assert (pickled / part).read_bytes() == (plain / part).read_bytes()


def test_a_trainers_checkpoint_without_a_tokenizer_is_refused_with_what_to_copy(
    published, tmp_path
):
    folder = shutil.copytree(published[0], tmp_path / "checkpoint-500")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()

    with pytest.raises(ModelUnavailable, match=r"has no tokenizer.*copy the tokenizer\.json or"):
        convert(folder, tmp_path / "model")
    with pytest.raises(ModelUnavailable, match="give one of the folders in it: checkpoint-500"):
        locate(str(tmp_path))
