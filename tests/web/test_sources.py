"""Clips over HTTP that continue a sound: it is sent once and named by its digest."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import replace

import httpx2
import numpy as np
import pytest

from musicgen_lab.backends.submitting import Busy
from musicgen_lab.clip import CODEC
from musicgen_lab.source import Source
from musicgen_lab.web.settings import WebSettings
from musicgen_lab.web.sources import KEPT_MAX_BYTES, UPLOADS_AT_ONCE, SourceStore
from tests.support.serving import serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import PROVENANCE
from tests.support.sources import hum, sound_file

WAV = {"Content-Type": "audio/wav"}


class EngineWithCodes(SineEngine):
    """Makes sines whose codes are known."""

    def make(self, request):
        made_by = replace(PROVENANCE, details={CODEC: "codec-1"})
        codes = np.full((4, round(50 * request.duration)), 7)
        return replace(super().make(request), codes=codes, provenance=made_by)


@pytest.fixture
def engine():
    return EngineWithCodes()


@pytest.fixture
def client(engine):
    with serving(sine_worker(engine)) as address, httpx2.Client(base_url=address) as client:
        yield client


def test_a_sound_is_sent_once_and_begins_any_number_of_clips(client, engine):
    sent = client.post("/sources", content=hum().content, headers=WAV)
    assert sent.status_code == 201
    assert sent.json() == {
        "begin_with": hum().digest, "duration": 2.0, "sample_rate": 32000, "channels": 1,
    }  # fmt: skip
    for seed in (0, 1):
        body = {"prompt": "x", "duration": 3, "seed": seed, "begin_with": hum().digest}
        answer = client.post("/generate_endpoint", json=body)
        assert answer.status_code == 200 and answer.json()["warnings"] == []
    assert [request.begin_with.content for request in engine.made] == [hum().content] * 2


def test_the_codes_of_an_answer_are_a_sound_to_begin_the_next_clip_with(client):
    first = client.post("/generate_endpoint", json={"prompt": "x", "duration": 1}).json()
    codes = base64.b64decode(first["codes_base64"])
    assert Source.of_bytes(codes).codes().codes.shape == (4, 50)
    kind = {"Content-Type": "application/octet-stream"}
    assert client.post("/sources", content=codes, headers=kind).json()["duration"] == 1.0


@pytest.mark.parametrize(
    ("content", "kind", "status", "detail"),
    [
        (hum().content, "text/plain", 415, "the body must be a WAV, FLAC, MP3 or Ogg file"),
        (hum().content, "", 415, "got none"),
        (b"x" * 2_000_001, "audio/wav", 413, "the body may have 2,000,000 bytes, got more; send"),
        (b"hello", "audio/wav", 422, "the body holds no sound that can be read"),
        (sound_file(np.zeros((1, 9000))), "audio/wav", 422, "the body is silent"),
    ],
    ids=["text", "no type", "too large", "no sound", "silence"],
)
def test_what_is_no_sound_to_begin_with_is_refused(content, kind, status, detail):
    settings = WebSettings(source_max_bytes=2_000_000)
    with serving(sine_worker(), settings=settings) as address:
        headers = {"Content-Type": kind} if kind else {}
        answer = httpx2.post(f"{address}/sources", content=content, headers=headers)
        assert httpx2.get(f"{address}/models").json()["source_max_bytes"] == 2_000_000
    assert answer.status_code == status
    assert detail in answer.json()["detail"] and answer.json()["request_id"]


def test_a_sound_that_was_not_sent_is_answered_404_and_a_path_is_never_opened(client, tmp_path):
    (tmp_path / "hum.wav").write_bytes(hum().content)
    for given, status in ((hum().digest, 404), (str(tmp_path / "hum.wav"), 422), (7, 422)):
        body = {"prompt": "x", "begin_with": given}
        answer = client.post("/generate_endpoint", json=body)
        assert answer.status_code == status and answer.json()["field"] == "begin_with"


def test_a_part_that_the_sound_does_not_have_is_answered_422_with_the_field(client):
    client.post("/sources", content=hum().content, headers=WAV)
    for fields, field in (({"begin_at": 5}, "begin_at"), ({"duration": 2}, "duration")):
        body = {"prompt": "x", "begin_with": hum().digest, **fields}
        answer = client.post("/generate_endpoint", json=body)
        assert answer.status_code == 422 and answer.json()["field"] == field


def test_a_service_with_a_key_takes_sounds_from_those_alone_who_have_it():
    with serving(sine_worker(), settings=WebSettings(api_key="k")) as address:
        assert httpx2.post(f"{address}/sources", content=b"", headers=WAV).status_code == 401


def test_the_sounds_not_used_for_longest_are_dropped_first():
    store, size = SourceStore(WebSettings()), KEPT_MAX_BYTES // 3
    sources = [Source(str(number) * 64, bytes(size)) for number in range(4)]
    for source in sources[:3]:
        store.put(source)
    assert store.get(sources[0].digest) is sources[0]
    store.put(sources[3])
    assert store.get(sources[1].digest) is None
    assert store.get(sources[0].digest) is sources[0]
    outdated = SourceStore(WebSettings(jobs_kept_s=0))
    outdated.put(sources[0])
    assert outdated.get(sources[0].digest) is None


def test_more_sounds_than_the_limit_at_once_are_refused():
    store = SourceStore(WebSettings())
    with contextlib.ExitStack() as uploads:
        for _ in range(UPLOADS_AT_ONCE):
            uploads.enter_context(store.uploading())
        with pytest.raises(Busy, match="which is the limit"), store.uploading():
            pass
    with store.uploading():
        pass


@pytest.mark.parametrize("seconds", [60, 300])
def test_a_deployment_may_raise_the_longest_clip_and_says_so(seconds):
    with serving(sine_worker(), settings=WebSettings(duration_max_s=seconds)) as address:
        assert httpx2.get(f"{address}/models").json()["duration_max_s"] == seconds
        schemas = httpx2.get(f"{address}/openapi.json").json()["components"]["schemas"]
        assert schemas["GenerationRequest"]["properties"]["duration"]["maximum"] == seconds
        body = {"prompt": "x", "duration": seconds}
        assert httpx2.post(f"{address}/generate_endpoint", json=body).status_code == 200
        body["duration"] = seconds + 1
        answer = httpx2.post(f"{address}/generate_endpoint", json=body)
    assert answer.status_code == 422 and answer.json()["limit"]["maximum"] == seconds
    assert f"from 1 to {seconds} seconds, got {seconds + 1}" in answer.json()["detail"]


def test_the_documented_endpoint_makes_clips_of_up_to_30_s(client):
    answer = client.post("/generate_endpoint", json={"prompt": "x", "duration": 31})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "duration must be a number from 1 to 30 seconds, got 31"
