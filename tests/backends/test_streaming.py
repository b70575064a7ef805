"""Clips are heard while they are made: with the embedded model, in real steps."""

import threading

import numpy as np
import pytest

from musicgen_lab.backends import Streams
from musicgen_lab.backends.local import LocalBackend
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine import sound_streams
from musicgen_lab.errors import InvalidRequest, ModelUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.streaming import ClipFailed
from tests.support.demo_engine import open_demo
from tests.support.sine_engine import sine_worker


def ask(seed=0, **fields):
    fields = {"prompt": "calm acoustic guitar melody", "duration": 2.0, **fields}
    return GenerationRequest(seed=seed, **fields)


def joined(chunks):
    return np.concatenate([chunk.samples for chunk in chunks], axis=1)


@pytest.fixture(scope="module")
def demo():
    worker = open_demo(max_clips=4)
    yield worker
    worker.close()


@pytest.fixture
def busy_listener(monkeypatch):
    """A listener who has always played everything: chunks are as short as they can be."""
    moments = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(sound_streams.time, "monotonic", lambda: next(moments))


def test_chunks_follow_one_another_and_are_the_clip_within_a_third_of_a_16_bit_step(
    demo, busy_listener
):
    clip = demo.submit(demo.resolve(ask())).result()

    chunks = list(demo.stream(ask()))

    starts = np.cumsum([0, *(chunk.samples.shape[1] for chunk in chunks)])
    assert len(chunks) > 5
    assert [chunk.start_s for chunk in chunks] == [n / 32_000 for n in starts[:-1]]
    assert starts[-1] == chunks[0].total_samples == clip.samples.shape[1]
    np.testing.assert_allclose(joined(chunks), clip.samples, rtol=0, atol=1e-5)


def test_the_last_chunk_has_the_clip_that_is_made_without_streaming(demo):
    clip = demo.submit(demo.resolve(ask())).result()

    *others, last = demo.stream(ask())

    assert all(chunk.clip is None for chunk in others)
    np.testing.assert_array_equal(last.clip.samples, clip.samples)
    assert last.clip.request == clip.request
    assert last.steps_done == last.steps == others[-1].steps_done


def test_the_first_chunk_comes_after_a_fraction_of_a_second_of_music_is_made(demo):
    stream = demo.stream(ask(duration=30.0))

    first = next(stream)
    stream.close()

    assert first.samples.shape[1] / first.sample_rate >= 0.2
    assert first.steps_done <= 25  # of 1,503; a second has 50


def test_a_fast_engine_hands_out_no_more_than_a_second_ahead_of_the_listener(demo, monkeypatch):
    monkeypatch.setattr(sound_streams.time, "monotonic", lambda: 0.0)  # all is made in no time

    *chunks, rest, last = demo.stream(ask(duration=8.0))

    assert rest.start_s == pytest.approx(1.0, abs=0.2)
    assert rest.samples.shape[1] / rest.sample_rate == pytest.approx(8.0 - rest.start_s)
    assert len(chunks) == 5 and last.samples.shape[1] == 0


def test_streams_at_once_are_what_they_are_alone(demo, busy_listener):
    requests = [ask(0, duration=2.0), ask(1, duration=1.0, cfg_coef=1.0), ask(2, temperature=1.3)]
    alone = [list(demo.stream(request)) for request in requests]
    together = [[] for _ in requests]

    for index, chunk in demo.stream_all(requests):
        together[index].append(chunk)

    for chunks, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(joined(chunks), joined(expected), rtol=0, atol=1e-5)
        np.testing.assert_array_equal(chunks[-1].clip.samples, expected[-1].clip.samples)


def test_a_clip_beside_a_stream_is_what_it_is_alone(demo):
    alone = demo.submit(demo.resolve(ask(5))).result()
    stream = demo.stream(ask(6, duration=4.0))
    next(stream)

    beside = demo.submit(demo.resolve(ask(5))).result()
    stream.close()

    np.testing.assert_array_equal(beside.samples, alone.samples)


def test_a_stream_that_is_closed_frees_its_slot(demo):
    made = demo.describe()["made"]
    streams = [demo.stream(ask(seed, duration=30.0)) for seed in range(4)]
    for stream in streams:
        next(stream)

    for stream in streams:
        stream.close()

    assert demo.describe()["in_flight"] == 0
    assert isinstance(demo.submit(demo.resolve(ask())).result(), Clip)
    assert demo.describe()["made"] == made + 1


def test_a_clip_that_fails_ends_its_own_stream_alone():
    worker = sine_worker()
    requests = [ask(prompt="fail in the middle"), ask(prompt="guitar"), ask(prompt="fail at once")]

    events = list(worker.stream_all(requests))

    last = dict(events)
    assert isinstance(last[0], Failure) and isinstance(last[2], Failure)
    assert isinstance(last[1].clip, Clip)
    assert [index for index, _ in events] == [0, 0, 1, 1, 2]
    with pytest.raises(ClipFailed, match="no room for it"):
        list(worker.stream(requests[0]))
    worker.close()


def test_the_end_of_a_stream_has_what_was_not_handed_out_before():
    worker = sine_worker()

    first, last = worker.stream(ask(prompt="guitar"))

    assert first.samples.shape[1] == last.samples.shape[1] == first.total_samples // 2
    np.testing.assert_array_equal(joined([first, last]), last.clip.samples)
    worker.close()


def test_a_local_backend_streams_and_ends_its_thread_with_the_last_stream():
    backend = LocalBackend("demo", max_clips=2)
    threads = threading.active_count()
    assert isinstance(backend, Streams)

    first, second = backend.stream(ask(1)), backend.stream(ask(2))
    next(first)
    next(second)
    assert threading.active_count() == threads + 1  # that both share
    first.close()
    chunks = list(second)

    assert threading.active_count() == threads
    (clip,) = backend.generate([backend.resolve(ask(2))])
    np.testing.assert_array_equal(chunks[-1].clip.samples, clip.samples)


def test_a_grid_is_streamed_in_one_batch():
    backend = LocalBackend("demo", max_clips=4)
    requests = [ask(seed, duration=1.0) for seed in range(4)]

    order = [index for index, _ in backend.stream_all(requests)]

    assert set(order[:4]) == set(range(4))  # each has begun before any has a second chunk


def test_what_cannot_be_streamed_is_refused_before_anything_is_made(tmp_path):
    backend = LocalBackend("demo")
    with pytest.raises(ModelUnavailable, match="no-such-model"):
        backend.stream(ask(model=str(tmp_path / "no-such-model")))
    assert list(backend.stream_all([])) == []


def test_the_audiocraft_engine_says_that_it_does_not_stream():
    pytest.importorskip("audiocraft")
    with pytest.raises(InvalidRequest, match="in one piece; stream with engine='lab'"):
        LocalBackend("demo", engine="audiocraft").stream(ask())
