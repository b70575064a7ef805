"""The local backend resolves models, makes clips as they are pulled, and turns errors into rows."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest

from musicgen_lab import (
    Clip,
    Failure,
    GenerationRequest,
    InvalidRequest,
    ModelUnavailable,
    connect,
)
from musicgen_lab.backends import Backend
from musicgen_lab.backends.local import LocalBackend, estimate_cpu_s
from musicgen_lab.clip import CODEC, Provenance
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from musicgen_lab.source import Source, SourceCodes
from musicgen_lab.sweep import Sweep
from tests.support.reference import needs_audiocraft


def request(**fields):
    return GenerationRequest(**{"prompt": "calm guitar", "duration": 1, "seed": 0, **fields})


@pytest.fixture(scope="module")
def backend():
    return connect("local")


def test_it_is_a_backend(backend):
    assert isinstance(backend, Backend)


def test_a_request_without_a_model_gets_the_backends_own_with_its_revision(backend):
    resolved = backend.resolve(request())
    assert resolved.model.startswith("demo@")
    assert backend.resolve(resolved) == resolved
    assert backend.resolve(request(model="demo")) == resolved


def test_a_model_that_does_not_exist_is_refused_when_it_is_named():
    with pytest.raises(ModelUnavailable, match="no model is called 'nope'"):
        connect("local:nope")


def test_it_says_how_a_clip_was_made_otherwise(backend):
    by_lab = Provenance("musicgen-lab 1.0", device="cpu", dtype="float32", lab_version="1.0")
    by_audiocraft = replace(by_lab, engine="audiocraft 1.3.0")
    assert backend.mismatch(by_lab) is None
    assert backend.mismatch(replace(by_lab, dtype="bfloat16")) is None  # "auto" takes what is there
    assert backend.mismatch(by_audiocraft) == "by the audiocraft engine instead of lab"
    precise = connect("local", dtype="bfloat16")
    assert precise.mismatch(by_lab) == "in float32 instead of bfloat16"


def test_several_models_can_be_requested_at_once(backend, tmp_path):
    copy = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy")
    requests = [backend.resolve(request(model=model)) for model in ("demo", str(copy))]
    demo, other = backend.generate(requests)
    assert other.request.model.startswith("copy@")
    np.testing.assert_array_equal(demo.samples, other.samples)


def test_a_model_has_gone_from_memory_when_the_next_is_opened(tmp_path, monkeypatch):
    copy = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy")
    opened, alive = [], []
    open_engine = Engine.open

    def note(*args, **options):
        alive.append([ref() is not None for ref in opened])
        engine = open_engine(*args, **options)
        opened.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(Engine, "open", note)
    backend = connect("local")

    list(backend.generate([request(model="demo"), request(model=str(copy))]))

    assert alive == [[], [False]]


def test_requests_are_taken_as_slots_become_free():
    taken = []

    def requests():
        for seed in range(6):
            taken.append(seed)
            yield request(seed=seed)

    clips = connect("local", max_clips=2).generate(requests())
    assert isinstance(next(clips), Clip)
    assert len(taken) <= 3
    clips.close()


@pytest.mark.parametrize("engine", ["lab", pytest.param("audiocraft", marks=needs_audiocraft)])
def test_both_engines_make_the_clip_and_report_its_progress(engine):
    seconds = []
    (clip,) = connect("local", engine=engine).generate([request()], on_progress=seconds.append)
    assert clip.samples.shape == (1, 32_000)
    assert sum(seconds) == pytest.approx(1, abs=0.1)
    assert engine.replace("lab", "musicgen-lab") in clip.provenance.engine


@pytest.mark.parametrize(
    ("engine", "method"),
    [
        ("lab", "musicgen_lab.engine.t5.T5Encoder.__call__"),
        pytest.param("audiocraft", "transformers.T5EncoderModel.forward", marks=needs_audiocraft),
    ],
)
def test_an_error_in_one_clip_is_a_failure_and_the_next_is_made(engine, method, monkeypatch):
    """Memory runs out while one prompt is encoded: the layer below is the only thing replaced."""

    def out_of_memory_once(*arguments, **options):
        monkeypatch.undo()
        raise MemoryError("no room")

    monkeypatch.setattr(method, out_of_memory_once)
    backend = connect("local", engine=engine)
    results = list(backend.generate([request(prompt="a"), request(prompt="b")]))
    (failure,) = [result for result in results if isinstance(result, Failure)]
    (clip,) = [result for result in results if isinstance(result, Clip)]
    assert (failure.error_type, failure.message) == ("MemoryError", "no room")
    assert {failure.request.prompt, clip.request.prompt} == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "magic"}, "engine must be lab or audiocraft, got 'magic'"),
        (
            {"engine": "audiocraft", "max_clips": 4},
            "dtype, max_clips and cuda_graphs are for the lab engine",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        connect("local", **options)


def test_the_estimate_grows_with_the_audio(backend):
    one, two = (backend.estimate_s([request(duration=d)]) for d in (10, 20))
    assert 0 < one < two


def test_the_estimate_counts_only_the_windows_that_are_made_and_every_row(backend):
    codes = SourceCodes(np.zeros((4, 290 * 50), np.uint16), "another", 50.0).to_bytes()
    given = {"begin_with": Source.of_bytes(codes), "duration": 300}
    config = backend._sources[backend.resolve(request()).model].config()
    mixed = {"prompt_b": "drums", "mix": 0.5}
    made, continued, single, two, three = (
        estimate_cpu_s([request(**fields)], config, 1)
        for fields in ({"duration": 300}, given, {"cfg_coef": 1}, {}, mixed)
    )
    assert continued < made / 4
    assert three - two == pytest.approx(two - single)


def test_progress_is_told_to_the_caller_of_its_own_clips_alone(backend):
    told = []
    list(backend.generate([request()], told.append))
    before = len(told)
    list(backend.stream(request()))
    assert len(told) == before > 0


def test_codes_of_another_codec_are_refused_before_a_model_is_opened(monkeypatch):
    monkeypatch.setattr(LocalBackend, "_open", None)
    backend = LocalBackend()
    own = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", max_clips=1)).provenance.details[CODEC]
    for codec, codebooks, is_own in ((own, 4, True), ("another", 4, False), (own, 8, False)):
        content = SourceCodes(np.zeros((codebooks, 50), np.uint16), codec, 50.0).to_bytes()
        source = Source.of_bytes(content, "guitar#3fa2")
        request = GenerationRequest(prompt="x", begin_with=source, duration=2)
        if is_own:
            assert backend.resolve(request).begin_with is source
            continue
        with pytest.raises(InvalidRequest, match=r"guitar#3fa2 has \d codebooks of the codec"):
            backend.resolve(request)


def test_a_clip_that_continues_another_has_its_codes_and_comes_from_the_folder(tmp_path):
    backend = LocalBackend(device="cpu")
    first = Sweep(prompt="calm guitar", duration=1).run(backend, tmp_path / "a", progress=False)
    key = first.frame["key"][0]
    sweep = Sweep(prompt="drums", begin_with=f"{tmp_path / 'a'}#{key}", duration=2, seed=[0, 1])
    results = sweep.run(backend, tmp_path / "b", progress=False)
    given = first.clip(key).codes
    for key in results.frame["key"]:
        np.testing.assert_array_equal(results.clip(key).codes[:, : given.shape[1]], given)
    assert results.clip(key).duration_s == 2
