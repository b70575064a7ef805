"""A clip's samples reach a file as they are, and its bytes depend on them alone."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.clip import Clip, Failure, decode_audio, encode_wav
from musicgen_lab.request import GenerationRequest
from tests.support.sines import PROVENANCE, sine_clip

REQUEST = GenerationRequest(prompt="a", duration=1, seed=0)


@pytest.mark.parametrize("channels", [1, 2])
def test_float_wav_keeps_every_sample_even_beyond_full_scale(channels):
    samples = np.random.default_rng(0).normal(0, 1, (channels, 1000)).astype(np.float32)
    decoded, sample_rate = decode_audio(encode_wav(samples, 32_000))
    assert sample_rate == 32_000
    assert np.abs(samples).max() > 1
    np.testing.assert_array_equal(decoded, samples)


def test_the_same_samples_give_the_same_bytes():
    clip = sine_clip(REQUEST)
    assert clip.wav_bytes() == sine_clip(REQUEST).wav_bytes()


def test_pcm_clips_beyond_full_scale_and_keeps_the_level_below():
    samples = np.array([[0.5, -0.25, 1.7, -3.0]], np.float32)
    decoded, _ = decode_audio(encode_wav(samples, 32_000, "PCM_16"))
    np.testing.assert_allclose(decoded, [[0.5, -0.25, 1, -1]], atol=1 / 16_000)


def test_the_player_gets_the_clip_at_its_own_level():
    quiet = sine_clip(REQUEST, level=0.005)
    played, _ = decode_audio(quiet.play().data)
    assert np.abs(played).max() == pytest.approx(0.005, abs=1e-4)


def test_samples_of_another_shape_or_type_are_refused():
    with pytest.raises(ValueError, match=r"float32 of shape \(channels, n\)"):
        Clip(REQUEST, np.zeros(10, np.float32), 32_000, PROVENANCE, 0.0)
    with pytest.raises(ValueError, match="float64"):
        Clip(REQUEST, np.zeros((1, 10)), 32_000, PROVENANCE, 0.0)


def test_a_failure_carries_where_its_error_was_raised_but_is_the_same_without():
    def step():
        raise MemoryError("no room")

    try:
        step()
    except MemoryError as error:
        failure = Failure.from_error(REQUEST, error, 0.5)
    assert "in step" in failure.traceback and failure.traceback.endswith("MemoryError: no room\n")
    assert failure == Failure(REQUEST, "MemoryError", "no room", 0.5)
