"""Clips are answered while they are made, over real HTTP."""

import asyncio
import base64
import io
import json
import logging
import threading
from concurrent.futures import Future

import httpx2
import numpy as np
import pytest
import soundfile

from musicgen_lab.backends.jobs import JobStatus
from musicgen_lab.clip import decode_audio
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.responses import Refusal
from musicgen_lab.web.settings import WebSettings
from musicgen_lab.web.streams import UnsentSound, job_events
from tests.support.demo_engine import open_demo
from tests.support.serving import serving
from tests.support.sine_engine import SineEngine, first_half, sine_worker
from tests.support.sines import sine_clip

BODY = {"prompt": "calm acoustic guitar melody", "duration": 2, "seed": 3}
EVENTS = {"Accept": "text/event-stream"}
FLOAT = {"stream": "1", "sample_format": "FLOAT"}
LOGGER = "musicgen_lab.service"


class HalfwayEngine(SineEngine):
    """Waits in the middle of a clip that is streamed, until the test opens the gate."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def hand_out(self, request, on_chunk):
        super().hand_out(request, on_chunk)
        assert self.gate.wait(60)


@pytest.fixture
def halfway():
    engine = HalfwayEngine()
    with serving(sine_worker(engine)) as address, httpx2.Client(base_url=address) as client:
        yield engine, client
        engine.gate.set()


@pytest.fixture(scope="module")
def client():
    with serving(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def demo():
    """Yield the embedded model, with one slot, and a client of it."""
    worker = open_demo(max_clips=1)
    with serving(worker) as address, httpx2.Client(base_url=address, timeout=300) as client:
        yield worker, client


def stream(client, params=None, **fields):
    headers = fields.pop("headers", {})
    params = {"stream": "1"} if params is None else params
    return client.stream(
        "POST", "/generate_endpoint", json={**BODY, **fields}, params=params, headers=headers
    )


def post(client, params=None, **fields):
    with stream(client, params, **fields) as answer:
        answer.read()
    return answer


def events_of(text):
    """Return the names and the data of server-sent events."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in blocks
    ]


def wav(body):
    return decode_audio(base64.b64decode(body["audio_base64"]))[0]


def test_sound_arrives_while_the_rest_of_it_is_not_made(halfway):
    engine, client = halfway
    with stream(client) as answer:
        parts = answer.iter_bytes()
        begun = next(parts)
        assert engine.made == []  # the engine waits for the test
        engine.gate.set()
        whole = begun + b"".join(parts)

    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["transfer-encoding"] == "chunked"
    samples, _ = decode_audio(whole)
    expected = sine_clip(GenerationRequest(**BODY)).samples
    assert np.abs(samples - expected).max() < 1 / 32000


@pytest.mark.parametrize("sample_format", ["PCM_16", "FLOAT"])
def test_the_file_is_the_one_that_is_sent_at_once(client, sample_format):
    accept = {"Accept": "audio/wav"}
    at_once = post(client, {"sample_format": sample_format}, headers=accept)

    streamed = post(client, {"stream": "1", "sample_format": sample_format})

    assert streamed.content == at_once.content
    for name in ("MusicGen-Seed", "MusicGen-Model", "MusicGen-Duration", "Vary"):
        assert streamed.headers[name] == at_once.headers[name]


def test_a_clip_of_the_model_is_streamed_within_a_third_of_a_16_bit_step(demo):
    _, client = demo
    at_once, _ = decode_audio(
        post(client, {"sample_format": "FLOAT"}, headers={"Accept": "audio/wav"}).content
    )

    streamed, sample_rate = decode_audio(post(client, FLOAT).content)

    assert sample_rate == 32_000 and streamed.shape == at_once.shape
    np.testing.assert_allclose(streamed, at_once, rtol=0, atol=1e-5)


def test_ogg_is_streamed_too(demo):
    _, client = demo
    answer = post(client, headers={"Accept": "audio/ogg"})

    info = soundfile.info(io.BytesIO(answer.content))
    assert (info.format, info.frames, info.samplerate) == ("OGG", 64_000, 32_000)
    sound, _ = decode_audio(answer.content)
    expected, _ = decode_audio(post(client, FLOAT).content)
    assert np.corrcoef(sound[0], expected[0])[0, 1] > 0.95


@pytest.mark.parametrize("accept", ["audio/mpeg", "audio/flac", "application/json"])
def test_what_cannot_be_streamed_is_refused_with_what_can(client, accept):
    answer = post(client, headers={"Accept": accept})
    assert answer.status_code == 406
    detail = answer.json()["detail"]
    assert "audio/wav, audio/x-wav, audio/ogg, text/event-stream" in detail
    assert detail.endswith(f"got '{accept}'; leave stream out for another type")


def test_events_have_the_parts_and_at_last_the_clip(demo):
    _, client = demo
    expected = post(client, {"sample_format": "FLOAT"}).json()

    answer = post(client, FLOAT, headers=EVENTS)

    assert answer.headers["content-type"].startswith("text/event-stream")
    *sounds, (name, done) = events_of(answer.text)
    assert name == "done" and {kind for kind, _ in sounds} == {"sound"}
    assert {**done, "elapsed_s": 0} == {**expected, "elapsed_s": 0}
    together = np.concatenate([wav(body) for _, body in sounds], axis=1)
    np.testing.assert_allclose(together, wav(done), rtol=0, atol=1e-5)
    steps = [body["steps_done"] for _, body in sounds]
    assert steps == sorted(steps) and steps[-1] == sounds[0][1]["steps"]


def test_a_client_that_would_rather_have_a_job_is_streamed_its_clip_all_the_same(client):
    answer = post(client, headers={"Prefer": "respond-async"})
    assert answer.status_code == 200 and "Preference-Applied" not in answer.headers


def test_fields_without_effect_are_named_in_the_header_and_in_the_last_event(client):
    fields = {"top_p": 0.9, "top_k": 50}
    assert "top_k" in post(client, **fields).headers["MusicGen-Warnings"]
    _, done = events_of(post(client, headers=EVENTS, **fields).text)[-1]
    assert "top_k" in done["warnings"][0]


def test_a_clip_that_fails_before_its_first_sound_is_refused_as_ever(client):
    for headers in ({}, EVENTS):
        answer = post(client, prompt="fail at once", headers=headers)
        assert answer.status_code == 502
        assert answer.json()["error_type"] == "MemoryError"


def test_a_clip_that_fails_later_ends_its_file_in_the_middle_and_is_logged(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    with (
        serving(sine_worker()) as address,  # which ends when all lines are written
        httpx2.Client(base_url=address) as client,
        pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"),
    ):
        post(client, prompt="fail in the middle")
    line = json.loads(caplog.messages[-1])
    assert line["status"] == 200 and line["streamed_s"] == 1.0
    assert (line["error"], line["message"]) == ("MemoryError", "no room for it")


def test_a_clip_that_fails_later_ends_its_events_with_the_error(caplog):
    caplog.set_level(logging.INFO, LOGGER)
    with serving(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        text = post(client, prompt="fail in the middle", headers=EVENTS).text
    (first, _), (last, body) = events_of(text)
    assert (first, last) == ("sound", "failed")
    assert body["error_type"] == "MemoryError" and "no room for it" in body["detail"]
    assert json.loads(caplog.messages[-1])["error"] == "MemoryError"


def test_a_clip_that_takes_too_long_ends_in_the_middle():
    engine = HalfwayEngine()
    settings = WebSettings(timeout_s=2)
    with serving(sine_worker(engine), settings=settings) as address:
        with httpx2.Client(base_url=address) as client:
            *_, (name, body) = events_of(post(client, headers=EVENTS).text)
        engine.gate.set()
    assert name == "failed" and body["error_type"] == "Timeout"
    assert "not finished within 2 s" in body["detail"]


def test_a_service_that_shuts_down_says_so_to_who_listens():
    engine = HalfwayEngine()
    worker = sine_worker(engine)
    with serving(worker) as address, httpx2.Client(base_url=address) as client:
        with stream(client, headers=EVENTS) as answer:
            parts = answer.iter_text()
            begun = next(parts)
            closing = threading.Thread(target=worker.close)  # which ends with the engine's step
            closing.start()
            *_, (name, body) = events_of(begun + "".join(parts))
        engine.gate.set()
        closing.join()
    assert name == "failed" and "shut down before this was made" in body["detail"]


def test_a_client_that_disconnects_frees_its_slot(demo):
    worker, client = demo
    made = worker.describe()["made"]
    with stream(client, duration=30) as answer:
        next(answer.iter_bytes())

    after = post(client, duration=1)  # waits for the only slot

    assert after.status_code == 200
    assert worker.describe() | {"device": None} == {
        "model": worker.model, "device": None, "max_clips": 1, "in_flight": 0, "made": made + 1,
    }  # fmt: skip


def test_two_clients_hear_their_clips_at_once():
    worker = open_demo(max_clips=2)
    with serving(worker) as address, httpx2.Client(base_url=address, timeout=300) as client:
        alone = [post(client, seed=seed, duration=1).content for seed in (1, 2)]
        with stream(client, seed=1, duration=1) as one, stream(client, seed=2, duration=1) as two:
            parts = [one.iter_bytes(), two.iter_bytes()]
            heads = [next(part) for part in parts]
            together = [head + b"".join(part) for head, part in zip(heads, parts, strict=True)]

    for sound, expected in zip(together, alone, strict=True):
        difference = decode_audio(sound)[0] - decode_audio(expected)[0]
        assert np.abs(difference).max() < 1.5 / 32768


@pytest.mark.parametrize(
    ("params", "fields", "field"),
    [
        ({"stream": "1"}, {"duration": 45}, "duration"),
        ({"stream": "perhaps"}, {}, "stream"),
    ],
)
def test_bad_input_is_answered_422_before_anything_is_made(client, params, fields, field):
    answer = post(client, params, **fields)
    assert answer.status_code == 422 and answer.json()["field"] == field


def test_a_stream_needs_the_key_and_counts_as_a_request_in_flight():
    engine = HalfwayEngine()
    settings = WebSettings(api_key="secret", waiting_max=0)
    key = {"Authorization": "Bearer secret"}
    with (
        serving(sine_worker(engine), settings=settings) as address,
        httpx2.Client(base_url=address) as client,
    ):
        assert post(client).status_code == 401
        with stream(client, headers=key) as answer:
            next(parts := answer.iter_bytes())
            assert post(client, headers=key).status_code == 429
            engine.gate.set()
            for _ in parts:
                pass
        assert post(client, headers=key).status_code == 200
        metrics = client.get("/metrics", headers=key).text
    assert "musicgen_audio_seconds_total 4.0" in metrics


def test_a_jobs_progress_is_told_as_events_until_it_has_ended(demo):
    _, client = demo
    url = client.post(
        "/generate_endpoint", json={**BODY, "duration": 10}, headers={"Prefer": "respond-async"}
    ).json()["url"]

    *progress, (name, done) = events_of(client.get(url, headers=EVENTS).text)

    assert name == "done" and done["result"]["duration"] == 10.0
    assert {kind for kind, _ in progress} == {"progress"}
    steps = [body["steps_done"] for _, body in progress]
    assert steps == sorted(set(steps)) and done["steps_done"] == done["steps"]


def test_a_job_that_is_gone_ends_its_events_and_one_that_is_away_is_looked_at_again():
    answers = [Refusal(503, "away"), JobStatus("running", 7, 9), Refusal(410, "it has expired")]

    async def look():
        answer = answers.pop(0)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def collect():
        events = job_events(JobStatus("running", 3, 9), look, lambda it: {"at": it.steps_done})
        return [part async for part in events]

    assert events_of(b"".join(asyncio.run(collect())).decode()) == [
        ("progress", {"at": 3}),
        ("progress", {"at": 7}),
        ("failed", {"detail": "it has expired"}),
    ]


def test_an_unknown_job_has_no_events(client):
    answer = client.get("/generate_endpoint/none", headers=EVENTS)
    assert answer.status_code == 404 and "no job" in answer.json()["detail"]


def test_sound_that_is_not_read_is_there_once_when_the_clip_is_finished():
    clip = sine_clip(GenerationRequest(prompt="x", duration=3))
    finished = Future()
    finished.set_result(clip)

    async def read_late():
        unsent = UnsentSound()
        unsent.take(first_half(clip))
        chunks = unsent.chunks()
        read = [await anext(chunks)]
        unsent.take(first_half(clip))  # of the rest, as it were
        unsent.take(finished)
        return read + [chunk async for chunk in chunks]

    first, *others = asyncio.run(read_late())
    assert all(np.shares_memory(chunk.samples, clip.samples) for chunk in others)
    together = np.concatenate([chunk.samples for chunk in (first, *others)], axis=1)
    np.testing.assert_array_equal(together, clip.samples)
    assert [chunk.start_s for chunk in others] == [1.5, 2.5]
    assert [chunk.clip for chunk in others] == [None, clip]
    assert {(chunk.steps_done, chunk.steps) for chunk in others} == {(2, 2)}
