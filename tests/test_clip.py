"""A clip's samples reach a file as they are, and its bytes depend on them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen_lab.clip import Clip, Failure, Provenance, checked, decode_audio, encode_wav
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


def _clip(samples, sample_rate=8_000):
    return Clip(REQUEST, samples.astype(np.float32), sample_rate, PROVENANCE, 0.5)


SECOND = np.zeros((1, 8_000))
NOT_A_CLIP = {
    "samples that are no numbers": (_clip(np.full((1, 8_000), np.nan)), "finite"),
    "one infinite sample": (_clip(np.append(SECOND[:, 1:], [[np.inf]], axis=1)), "finite"),
    "no samples": (_clip(SECOND[:, :0]), "lasts 0 s, not 1 s"),
    "ten samples": (_clip(SECOND[:, :10]), "lasts 0.00125 s"),
    "twice the length": (_clip(np.zeros((1, 16_000))), "lasts 2 s"),
    "a rate of 1 Hz": (_clip(SECOND[:, :1], sample_rate=1), "1 Hz"),
    "five channels": (_clip(np.zeros((5, 8_000))), "5 channels"),
    "no channel": (_clip(np.zeros((0, 8_000))), "0 channels"),
}


@pytest.mark.parametrize("kind", NOT_A_CLIP)
def test_a_clip_that_cannot_be_what_was_requested_is_a_failure_that_says_why(kind):
    clip, reason = NOT_A_CLIP[kind]
    failure = checked(clip)
    assert isinstance(failure, Failure) and failure.error_type == "InvalidClip"
    assert reason in failure.message
    assert (failure.request, failure.elapsed_s) == (REQUEST, 0.5)


def test_clips_of_one_and_two_channels_within_a_few_frames_of_the_duration_are_kept():
    for frames in (7_360, 8_000, 8_640):
        for channels in (1, 2):
            clip = _clip(np.zeros((channels, frames)))
            assert checked(clip).samples is clip.samples


@pytest.mark.parametrize("elapsed_s", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_counts_as_nothing(elapsed_s):
    assert checked(replace(_clip(SECOND), elapsed_s=elapsed_s)).elapsed_s == 0
    assert checked(Failure(REQUEST, "Lost", "gone", elapsed_s)).elapsed_s == 0


def test_long_texts_of_a_failure_are_cut_to_what_a_table_can_show():
    failure = checked(Failure(REQUEST, "E" * 1_000, "m" * 1_000_000))
    assert (len(failure.error_type), len(failure.message)) == (100, 2_000)


MADE_BY = {"engine": "e 1", "device": "cuda (NVIDIA A10)", "dtype": "float16", "lab_version": "1"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"details": None},
        {"details": {"gpu_s": "many"}},
        {"details": {"cost_usd": -1.0}},
        {"details": {"gpu": 3}},
        {"details": {"nested": {"a": 1}}},
        {"details": {str(number): 0 for number in range(101)}},
        {"details": {"gpu_s": float("nan")}},
        {"engine": None},
        {"engine": "two\nlines"},
        {"device": "d" * 201},
        {"dtype": "float16; touch somewhere"},
        {"dtype": ""},
        {"unknown": 1},
    ],
)
def test_provenance_of_another_type_or_length_is_refused(wrong):
    assert Provenance(**MADE_BY).details == {}
    with pytest.raises((ValueError, TypeError)):
        Provenance(**{**MADE_BY, **wrong})
