"""The web function over HTTP, its clips made by the GPU class, on the in-memory Modal server."""

import http.client
import io
import json
import re
import time
import zipfile
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

import musicgen_lab as lab
from musicgen_lab.backends.http import HttpBackend
from musicgen_lab.clip import Clip, decode_audio
from musicgen_lab.request import GenerationRequest
from tests.modal_server.deployed import clips_sent, deploy, is_clip, running_functions
from tests.modal_server.server import modal_server

BETWEEN_LOOKS_S = 0.05  # nothing depends on its length


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        deploy(server, MUSICGEN_LIVE="1")
        yield server


@pytest.fixture(scope="module")
def address(server):
    return server.web_url("musicgen")


def test_health_is_answered_without_waking_a_gpu(server, address):
    assert httpx2.get(f"{address}/health", timeout=120).json() == {"status": "ok", "model": "demo"}
    assert running_functions(server) == {"web"}


def test_a_clip_comes_through_the_web_app_from_the_gpu_class(server, address):
    backend = HttpBackend(address)
    request = backend.resolve(GenerationRequest(prompt="x", duration=1, seed=5))
    (clip,) = backend.generate([request])
    backend.close()
    assert isinstance(clip, Clip), clip
    assert clip.provenance.details["gpu_s"] > 0
    assert len(clips_sent(server)) == 1


def test_the_web_app_says_what_the_model_reads_of_prompts_without_a_gpu(server, address):
    answer = httpx2.post(f"{address}/prompts", json={"prompts": ["静かな guitar"]}, timeout=280)
    assert answer.status_code == 200, answer.text
    assert answer.json()["prompts"][0]["unread"] == ["静かな"]


def test_a_request_is_logged_under_its_id_by_the_web_app_and_where_its_clip_is_made(
    server, address
):
    body = {"prompt": "x", "duration": 1, "seed": 6}
    answer = httpx2.post(f"{address}/generate_endpoint", json=body, timeout=280)
    assert answer.status_code == 200
    request_id = answer.headers["X-Request-Id"]
    for function, status in (("web", 200), ("MusicGen.*", "ok")):
        lines = [line for line in server.servicer.log(function).splitlines() if request_id in line]
        (logged,) = map(json.loads, lines)
        assert logged["status"] == status and logged["seed"] == 6, function


def test_long_work_is_answered_at_once_with_an_id_and_fetched_when_it_is_done(server, address):
    metrics = httpx2.get(f"{address}/metrics", timeout=280).text
    before_s = float(re.search(r"(?m)^musicgen_audio_seconds_total (.+)$", metrics)[1])
    answer = httpx2.post(
        f"{address}/generate_endpoint",
        json={"prompt": "x", "duration": 2, "seed": 8},
        headers={"Prefer": "respond-async"},
        timeout=280,
    )
    assert answer.status_code == 202
    job = answer.json()
    url = f"{address}/generate_endpoint/{job['id']}"
    assert job["id"] in server.servicer.calls
    while (status := httpx2.get(url, timeout=280).json())["status"] in ("queued", "running"):
        time.sleep(BETWEEN_LOOKS_S)
    assert status["status"] == "done" and status["steps_done"] == status["steps"] > 0
    made = f"musicgen_audio_seconds_total {before_s + 2}"
    while made not in httpx2.get(f"{address}/metrics", timeout=280).text:
        time.sleep(BETWEEN_LOOKS_S)  # the web app is told in its own time


def test_a_client_that_disconnects_frees_its_slot_on_modal(server, address):
    delivered = []
    server.servicer.on_deliver = lambda input_id, given: (
        delivered.append(input_id) if is_clip(given) else None
    )
    client = http.client.HTTPConnection(urlsplit(address).netloc)
    body, as_json = (
        json.dumps({"prompt": "x", "duration": 30}),
        {"Content-Type": "application/json"},
    )
    client.request("POST", "/generate_endpoint", body, as_json)
    server.wait_until(lambda servicer: delivered)
    client.close()
    server.wait_until(lambda servicer: delivered[0] in servicer.cancelled)
    server.servicer.on_deliver = None


def test_a_clip_is_heard_through_the_web_app_while_it_is_made(server, address):
    body = {"prompt": "x", "duration": 4, "seed": 9}
    at_once = httpx2.post(
        f"{address}/generate_endpoint", json=body, headers={"Accept": "audio/wav"}, timeout=280
    )
    with httpx2.stream(
        "POST", f"{address}/generate_endpoint?stream=1", json=body, timeout=280
    ) as answer:
        parts = list(answer.iter_raw())

    assert len(parts) > 1 and answer.headers["content-type"] == "audio/wav"
    heard, _ = decode_audio(b"".join(parts))
    np.testing.assert_allclose(heard, decode_audio(at_once.content)[0], rtol=0, atol=2 / 32768)


def test_clips_of_the_live_page_are_downloaded_as_a_run_folder(server, address, tmp_path):
    assert "<title>MusicGen Lab</title>" in httpx2.get(address, timeout=120).text
    assert httpx2.get(f"{address}/live/about", timeout=120).json()["keep"] == "zip"
    body = {
        "fields": {"prompt": "calm", "duration": 1, "seed": 3},
        "cells": [{"temperature": 0.7}, {"temperature": 1.3}],
    }
    lines = httpx2.post(f"{address}/live/clips", json=body, timeout=280).text.splitlines()
    assert [event["type"] for event in map(json.loads, lines)].count("clip") == 2

    kept = httpx2.post(f"{address}/live/kept", json=body, timeout=280).json()

    content = httpx2.get(f"{address}/{kept['zip']}", timeout=280).content
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path)
    results = lab.Results.open(tmp_path / kept["folder"])
    assert results.swept == ("temperature",) and list(results.frame["status"]) == ["ok"] * 2
    assert "--temperature 0.7,1.3" in kept["command"]


def test_bad_input_is_refused_before_a_gpu_hears_of_it(server, address):
    before = len(clips_sent(server))
    answer = httpx2.post(
        f"{address}/generate_endpoint", json={"prompt": "x", "duration": 45}, timeout=120
    )
    assert answer.status_code == 422 and answer.json()["field"] == "duration"
    assert len(clips_sent(server)) == before
