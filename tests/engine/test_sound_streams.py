"""The sound of a running clip is handed out by the engine, whatever clip it is."""

import itertools

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine import sound_streams
from musicgen_lab.engine.codec import Codec
from tests.support.cases import PROMPTS, codes_source, sampled, tokens_of

LONG = {"duration": 2.75, "extend_stride": 1.0}  # three of the short windows


@pytest.fixture(autouse=True)
def busy_listener(monkeypatch):
    """A listener who has always played everything: chunks are as short as they can be."""
    moments = itertools.count(step=1000)
    monkeypatch.setattr(sound_streams.time, "monotonic", lambda: next(moments))


def stream(engine, request):
    """Return the chunks of a request, and its result."""
    chunks = []
    engine.add_request(request, chunks.append)
    while not (results := engine.step()):
        pass
    (result,) = results
    return chunks, result


def check(chunks, clip):
    """Check that chunks follow one another and are the clip within a third of a 16-bit step."""
    ends = np.cumsum([chunk.samples.shape[1] for chunk in chunks])
    assert [round(chunk.start_s * 32_000) for chunk in chunks] == [0, *ends[:-1]]
    assert {chunk.total_samples for chunk in chunks} == {clip.samples.shape[1]}
    together = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    np.testing.assert_allclose(together, clip.samples, rtol=0, atol=1e-5)


def test_the_chunks_of_a_clip_are_the_clip(case):
    request = sampled(duration=1.5)
    (alone,) = case.engine.generate([request])

    chunks, clip = stream(case.engine, request)

    assert len(chunks) >= 5
    check(chunks, clip)
    np.testing.assert_array_equal(clip.samples, alone.samples)


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_a_clip_of_several_windows_is_heard_across_their_seams(make_short, name):
    chunks, clip = stream(make_short(name).engine, sampled(**LONG))

    assert len(chunks) >= 10
    check(chunks, clip)
    assert [chunk.steps_done for chunk in chunks] == sorted(chunk.steps_done for chunk in chunks)
    assert chunks[-1].steps_done == chunks[-1].steps


@pytest.mark.parametrize("include_start", [True, False])
def test_a_clip_that_begins_with_given_codes_is_heard_with_or_without_them(
    make_short, include_start
):
    engine = make_short("mono").engine
    given = codes_source(engine, tokens_of(engine, sampled(PROMPTS[2], seed=9))[:, :25])

    chunks, clip = stream(engine, sampled(**LONG, begin_with=given, include_start=include_start))

    assert clip.duration_s == pytest.approx(2.74 if include_start else 2.24)
    check(chunks, clip)
    if include_start:  # what was given is heard at once
        assert chunks[0].steps_done <= 10 and chunks[0].samples.shape[1] >= 0.3 * 32_000


@pytest.mark.parametrize("listened", [True, False])
def test_clips_that_end_together_are_decoded_one_a_step_beside_a_listener(mono, listened):
    chunks, ended = [], []
    requests = [sampled(seed=seed) for seed in (1, 2)]
    alone = {clip.request.seed: clip for r in requests for clip in mono.engine.generate([r])}
    mono.engine.add_request(sampled(duration=1.5), chunks.append if listened else None)
    for request in requests:
        mono.engine.add_request(request)

    while sum(map(len, ended)) < 3:
        if results := mono.engine.step():
            ended.append(results)

    assert [len(results) for results in ended] == ([1, 1, 1] if listened else [2, 1])
    for clip in itertools.chain(*ended[:-1]):
        np.testing.assert_array_equal(clip.samples, alone[clip.request.seed].samples)


def test_a_part_that_cannot_be_decoded_costs_the_stream_and_not_the_clip(mono, monkeypatch):
    (alone,) = mono.engine.generate([sampled()])
    monkeypatch.setattr(Codec, "_decode_next", lambda *_: 1 / 0)

    chunks, clip = stream(mono.engine, sampled())

    assert chunks == []
    np.testing.assert_array_equal(clip.samples, alone.samples)


def test_sound_that_is_not_finite_is_never_handed_out(mono, monkeypatch):
    whole = Codec.decode
    monkeypatch.setattr(Codec, "decode", lambda *a: [x * torch.nan for x in whole(*a)])
    parts = Codec.decode_parts
    monkeypatch.setattr(Codec, "decode_parts", lambda *a: [x * torch.nan for x in parts(*a)])

    chunks, result = stream(mono.engine, sampled())

    assert chunks == []
    assert isinstance(result, Failure) and "not finite" in result.message


def test_an_aborted_clip_is_heard_no_more(mono):
    chunks = []
    request_id = mono.engine.add_request(sampled(duration=2.0), chunks.append)
    while not chunks:
        mono.engine.step()

    mono.engine.abort(request_id)
    (clip,) = mono.engine.generate([sampled()])

    assert isinstance(clip, Clip) and len(chunks) == 1


def stream_beside(engine, on_chunk):
    """Return the chunks of a clip that is streamed beside another one."""
    chunks = []
    engine.add_request(sampled(duration=1.0), on_chunk)
    engine.add_request(sampled(duration=1.5), chunks.append)
    results = []
    while len(results) < 2:
        results += engine.step()
    return chunks, next(clip for clip in results if clip.request.duration == 1.5)


def test_a_listener_who_fails_costs_its_own_stream_alone(mono):
    check(*stream_beside(mono.engine, lambda _: 1 / 0))


def test_a_part_that_cannot_be_decoded_costs_its_own_stream_alone(mono, monkeypatch):
    decode_parts, lost = Codec.decode_parts, []

    def decode_all_but_the_shorter(codec, parts):
        sounds = decode_parts(codec, parts)  # the places in the clips have moved on when it fails
        if any(decoding.frames == 50 for decoding, _ in parts):
            raise MemoryError("no room")
        return sounds

    monkeypatch.setattr(Codec, "decode_parts", decode_all_but_the_shorter)
    check(*stream_beside(mono.engine, lost.append))
    assert lost == []
