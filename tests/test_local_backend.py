"""The local backend resolves models, makes clips as they are pulled, and turns errors into rows."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from musicgen_lab import Clip, Failure, GenerationRequest, ModelUnavailable, connect
from musicgen_lab.backends import Backend
from musicgen_lab.engine.source import EMBEDDED_FOLDER


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


def test_several_models_can_be_asked_for_in_one_go(backend, tmp_path):
    copy = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "copy")
    requests = [backend.resolve(request(model=model)) for model in ("demo", str(copy))]
    demo, other = backend.generate(requests)
    assert other.request.model.startswith("copy@")
    np.testing.assert_array_equal(demo.samples, other.samples)


def test_requests_are_taken_one_at_a_time(backend):
    taken = []

    def requests():
        for seed in range(3):
            taken.append(seed)
            yield request(seed=seed)

    clips = backend.generate(requests())
    assert isinstance(next(clips), Clip)
    assert len(taken) == 1
    clips.close()


def test_an_error_in_one_clip_is_a_failure_and_the_next_is_made(backend):
    """A prompt of a thousand letters has more tokens than fit into a record's memory limit."""
    engine = backend._open(backend._sources[backend.resolve(request()).model])
    generate = engine.generate

    def out_of_memory_once(request, progress=None):
        engine.generate = generate
        raise MemoryError("no room")

    engine.generate = out_of_memory_once
    failure, clip = backend.generate([request(), request(seed=1)])
    assert isinstance(failure, Failure)
    assert (failure.error_type, failure.message) == ("MemoryError", "no room")
    assert failure.request.seed == 0
    assert clip.request.seed == 1


def test_the_estimate_grows_with_the_audio(backend):
    one, two = (backend.estimate_s([request(duration=d)]) for d in (10, 20))
    assert 0 < one < two
