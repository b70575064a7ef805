"""Audiobox Aesthetics is loaded and run as usual, in small and with random weights."""

from __future__ import annotations

import sys
import warnings
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from musicgen_lab import ModelUnavailable
from musicgen_lab.analysis.aesthetics import RATE_HZ, SCORES, Aesthetics
from tests.support.reference import needs_aesthetics
from tests.support.sounds import RATE, noise, sine
from tests.support.tiny_aesthetics import make_aesthetics, small_encoder

pytestmark = [
    needs_aesthetics,
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with small_encoder():
        yield make_aesthetics(tmp_path_factory.mktemp("aesthetics"))


@pytest.fixture(scope="module")
def aesthetics(model):
    return Aesthetics(model)


def values(scores):
    assert list(scores) == list(SCORES)
    return np.array(list(scores.values()))


def test_there_are_four_scores_that_depend_on_the_sound_and_are_the_same_every_time(aesthetics):
    found = values(aesthetics.scores(noise(), RATE))
    assert np.isfinite(found).all()
    assert len(set(found)) == 4
    assert aesthetics.scores(noise(), RATE) == aesthetics.scores(noise(), RATE)
    assert np.abs(values(aesthetics.scores(sine(440), RATE)) - found).min() > 1e-3


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_they_are_what_the_package_itself_predicts(model, aesthetics, tmp_path, monkeypatch):
    from audiobox_aesthetics.infer import AesPredictor

    copytree(model, tmp_path / "facebook/audiobox-aesthetics")  # a folder comes before the Hub
    monkeypatch.chdir(tmp_path)
    sound = noise(duration_s=23, rate=44_100, channels=2)
    asked = {"path": torch.from_numpy(sound), "sample_rate": 44_100}
    (theirs,) = AesPredictor(checkpoint_pth=None).forward([asked])
    ours = aesthetics.scores(sound, 44_100)
    assert ours == pytest.approx(
        {name: theirs[axis] for name, axis in SCORES.items()},
        abs=1e-3,  # in theirs the channels are mixed last; on a GPU it is less exact
    )


def test_of_a_long_clip_every_ten_seconds_count_and_the_rest_by_its_length(aesthetics):
    long = np.concatenate(
        [
            noise(duration_s=10, rate=RATE_HZ),
            sine(440, duration_s=10, rate=RATE_HZ),
            sine(3000, duration_s=2, rate=RATE_HZ),
        ],
        axis=1,
    )
    parts = np.split(long, [10 * RATE_HZ, 20 * RATE_HZ], axis=1)
    alone = [values(aesthetics.scores(part, RATE_HZ)) for part in parts]
    expected = (alone[0] + alone[1] + 0.2 * alone[2]) / 2.2
    assert values(aesthetics.scores(long, RATE_HZ)) == pytest.approx(expected, abs=1e-5)


def test_a_sample_more_than_ten_seconds_changes_next_to_nothing(aesthetics):
    sound = noise(duration_s=10, rate=RATE_HZ)
    longer = np.pad(sound, [(0, 0), (0, 1)], constant_values=0.1)
    expected = values(aesthetics.scores(sound, RATE_HZ))
    assert values(aesthetics.scores(longer, RATE_HZ)) == pytest.approx(expected, abs=1e-3)


def test_a_sound_scores_alike_at_every_rate_and_on_any_number_of_channels(aesthetics):
    expected = values(aesthetics.scores(sine(440, rate=RATE_HZ), RATE_HZ))
    for rate in (32_000, 44_100, 48_000):
        found = aesthetics.scores(sine(440, rate=rate), rate)
        assert values(found) == pytest.approx(expected, abs=0.05)
        assert aesthetics.scores(np.repeat(sine(440, rate=rate), 2, axis=0), rate) == found


def test_what_is_above_full_scale_is_not_clipped(aesthetics):
    sound = noise(level=0.3)
    expected = values(aesthetics.scores(sound, RATE))
    assert values(aesthetics.scores(20 * sound, RATE)) == pytest.approx(expected, abs=0.005)
    clipped = np.clip(20 * sound, -1, 1)
    assert values(aesthetics.scores(clipped, RATE)) != pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("silence", [np.zeros((2, RATE)), np.zeros((1, 0))])
def test_silence_is_not_judged(aesthetics, silence):
    assert np.isnan(values(aesthetics.scores(silence, RATE))).all()


def test_nothing_is_printed_and_nothing_warned_of(model, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Aesthetics(model).scores(noise(), RATE)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_is_not_there_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path / "nothing"), "nobody/no_aesthetics"):
        with pytest.raises(ModelUnavailable, match="all other features work without it") as caught:
            Aesthetics(name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_the_extra_it_says_which_one_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics.infer", None)
    with pytest.raises(ModelUnavailable, match=r"pip install 'musicgen-lab\[perceptual\]'"):
        Aesthetics(model)


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def one_weight_less(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["proj_layer.PQ.0.bias"]
    save_file(weights, folder / "model.safetensors")


def only_a_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def another_kind(folder):
    (folder / "config.json").write_text('{"model_type": "clap"}')


def without_scales(folder):
    (folder / "config.json").write_text('{"proj_num_layer": 3, "proj_ln": true, "nth_layer": 2}')


@pytest.mark.parametrize(
    "spoil", [cut_short, one_weight_less, only_a_pickle, another_kind, without_scales]
)
def test_what_is_damaged_or_another_model_is_refused_in_one_line(model, tmp_path, spoil):
    folder = copytree(model, tmp_path / "spoilt")
    spoil(folder)
    way_out = "damaged or no Audiobox Aesthetics model .* use facebook/audiobox-aesthetics"
    with pytest.raises(ModelUnavailable, match=way_out) as caught:
        Aesthetics(str(folder))
    assert "\n" not in str(caught.value)
