"""A CLAP model is loaded and run as usual, in small and with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab import ModelUnavailable
from musicgen_lab.analysis.perceptual import Clap
from tests.support.sounds import RATE, noise, sine
from tests.support.tiny_clap import make_clap


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    return Clap(make_clap(tmp_path_factory.mktemp("clap")))


def test_sounds_and_texts_are_points_of_length_1(clap):
    for point in (clap.embed_sound(noise(), RATE), clap.embed_text("piano")):
        assert point.shape == (12,)
        assert np.linalg.norm(point) == pytest.approx(1)


def test_the_similarity_is_between_minus_1_and_1_and_the_same_every_time(clap):
    asked = [clap.similarity(noise(), RATE, "drums") for _ in range(2)]
    assert asked[0] == asked[1]
    assert -1 <= asked[0] <= 1
    assert clap.similarity(noise(), RATE, "piano") != asked[0]


def test_a_long_clip_is_heard_whole_and_the_same_every_time(clap):
    long = np.concatenate([noise(duration_s=10), sine(440, duration_s=10)], axis=1)
    point = clap.embed_sound(long, RATE)
    assert clap.embed_sound(long, RATE) == pytest.approx(point)
    halves = [clap.embed_sound(part, RATE) for part in np.split(long, 2, axis=1)]
    assert point == pytest.approx(sum(halves) / np.linalg.norm(sum(halves)), abs=1e-4)


def test_silence_has_no_text_similarity(clap):
    assert np.isnan(clap.similarity(np.zeros((1, RATE)), RATE, "piano"))


def test_a_model_that_is_not_there_is_one_line_with_the_way_out(tmp_path):
    with pytest.raises(ModelUnavailable, match="all other features work without it") as caught:
        Clap(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)
