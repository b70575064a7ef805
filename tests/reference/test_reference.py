"""audiocraft as the yardstick: one clip at a time, the same for the same request."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip
from musicgen_lab.conversion.convert import convert
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from musicgen_lab.reference.engine import ReferenceEngine
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source
from tests.support.checkpoints import build_checkpoint
from tests.support.reference import needs_audiocraft
from tests.support.sources import hum

pytestmark = needs_audiocraft


def request(**fields):
    return GenerationRequest(**{"prompt": "calm guitar", "duration": 1, "seed": 0, **fields})


@pytest.fixture(scope="module")
def engine():
    return ReferenceEngine(EMBEDDED_FOLDER, "cpu")


@pytest.fixture(scope="module")
def clip(engine):
    return make(engine, request())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint in audiocraft's own format."""
    return build_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def make(engine, request):
    (clip,) = engine.generate([request])
    assert isinstance(clip, Clip), clip
    return clip


def test_a_clip_has_the_requested_length_and_is_not_silent(clip):
    assert clip.samples.shape == (1, 32_000)
    assert clip.sample_rate == 32_000
    assert 0.01 < clip.samples.std() < 1
    assert clip.provenance.engine == "audiocraft 1.3.0"
    assert clip.provenance.dtype == "float32"


def test_a_clip_leaves_out_what_it_begins_with_where_that_is_wanted(engine):
    fields = {"begin_with": hum(), "begin_s": 0.51}
    whole, rest = (
        make(engine, request(include_start=include, **fields)) for include in (True, False)
    )

    assert np.array_equal(rest.samples, whole.samples[:, 16_000:])


def test_a_source_whose_content_is_not_here_is_refused(engine):
    (failure,) = engine.generate([request(begin_with=Source(64 * "0"))])

    assert failure.error_type == "InvalidRequest"
    assert "is not known here" in failure.message


def test_the_same_request_gives_the_same_samples_whatever_ran_before(engine, clip):
    make(engine, request(prompt="something much longer than the first prompt", seed=5))
    torch.manual_seed(99)
    np.testing.assert_array_equal(make(engine, request()).samples, clip.samples)


def test_the_callers_random_state_is_untouched(engine):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    make(engine, request())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"temperature": 0},
        {"cfg_coef": 1},
        {"cfg_coef": 6},
        {"top_k": 5},
        {"top_p": 0.3},
        {"prompt": "wild drums"},
    ],
)
def test_every_parameter_acts(engine, clip, change):
    assert not np.array_equal(make(engine, request(**change)).samples, clip.samples)


def test_fields_without_effect_have_none(engine):
    greedy = engine.generate_tokens(request(temperature=0))
    assert torch.equal(engine.generate_tokens(request(temperature=0, seed=7, top_k=3)), greedy)
    nucleus = engine.generate_tokens(request(top_p=0.5))
    assert torch.equal(engine.generate_tokens(request(top_p=0.5, top_k=3)), nucleus)


def test_top_k_above_the_number_of_codes_is_all_of_them(engine):
    everything = engine.generate_tokens(request(top_k=256))
    assert torch.equal(engine.generate_tokens(request(top_k=2048)), everything)


def test_progress_is_reported_in_steps(engine):
    steps = []
    engine.on_progress = steps.append
    make(engine, request())
    engine.on_progress = None
    assert sum(steps) == 53  # 50 frames and the delays of three codebooks


def test_a_stereo_checkpoint_gives_two_different_channels(tmp_path):
    engine = ReferenceEngine(build_checkpoint(tmp_path, stereo=True), "cpu")
    samples = make(engine, request()).samples
    assert samples.shape == (2, 32_000)
    assert not np.array_equal(*samples)


def test_a_checkpoint_and_the_model_folder_made_of_it_give_the_same_tokens(checkpoint):
    folder = convert(checkpoint, checkpoint.parent / "prepared")
    original, converted = ReferenceEngine(checkpoint, "cpu"), ReferenceEngine(folder, "cpu")
    for each in (request(), request(temperature=0, cfg_coef=5)):
        tokens = original.generate_tokens(each)
        assert torch.equal(converted.generate_tokens(each), tokens)
    torch.testing.assert_close(
        torch.from_numpy(make(converted, request()).samples),
        torch.from_numpy(make(original, request()).samples),
        rtol=0,
        atol=1e-4,
    )


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def _retitle(path):
    package = torch.load(path, weights_only=True)
    package["xp.cfg"] = package["xp.cfg"].replace("dim: 64", "dim: 128")
    torch.save(package, path)


def _melody(path):
    package = torch.load(path, weights_only=True)
    melody = "conditioners:\n  self_wav:\n    model: chroma_stem\n    chroma_stem: {}\n"
    package["xp.cfg"] = package["xp.cfg"].replace("conditioners:\n", melody)
    torch.save(package, path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_truncate, "is damaged, or holds more than tensors and plain values"),
        (lambda path: path.write_bytes(b""), "is damaged, or holds more than tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Malicious())), "nothing of it was executed"),
        (
            lambda path: torch.save({"a": 1}, path),
            "is not an audiocraft checkpoint: it has no xp.cfg",
        ),
        (_retitle, "does not fit its own configuration"),
        (_melody, "only text models are served, not melody or style"),
    ],
)
def test_a_checkpoint_that_cannot_be_trusted_is_one_clear_error(
    checkpoint, tmp_path, harm, message
):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    harm(folder / "state_dict.bin")
    with pytest.raises(ModelUnavailable) as error:
        ReferenceEngine(folder, "cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
