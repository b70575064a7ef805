"""The web function's own app over HTTP, its clips made by the GPU class on the in-memory server."""

import http.client
import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import httpx2
import pytest

from musicgen_lab.backends.http import HttpBackend
from musicgen_lab.clip import Clip
from musicgen_lab.request import GenerationRequest
from tests.modal_server.deployed import deploy, is_clip, settings
from tests.modal_server.server import modal_server

PROGRAM = """
import socket, uvicorn
from service import app
with socket.socket() as listening:
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    web = uvicorn.Config(app.web.local(), log_level="error")
    uvicorn.Server(web).run(sockets=[listening])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        deploy(server)
        yield server


@pytest.fixture(scope="module")
def address(server):
    environment = {**os.environ, **server.environment, **settings()}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as web:
        try:
            yield web.stdout.readline().strip()
        finally:
            web.terminate()


def test_health_is_answered_without_waking_a_gpu(server, address):
    assert httpx2.get(f"{address}/health").json() == {"status": "ok", "model": "demo"}
    assert not server.servicer.calls and not server.servicer.containers


def test_a_clip_comes_through_the_web_app_from_the_gpu_class(server, address):
    backend = HttpBackend(address)
    request = backend.resolve(GenerationRequest(prompt="x", duration=1, seed=5))
    (clip,) = backend.generate([request])
    backend.close()
    assert isinstance(clip, Clip), clip
    assert clip.provenance.details["gpu_s"] > 0
    assert len(server.servicer.calls) == 1


def test_a_client_that_leaves_frees_its_place_on_modal(server, address):
    delivered = []
    server.servicer.on_deliver = lambda input_id, given: (
        delivered.append(input_id) if is_clip(given) else None
    )
    client = http.client.HTTPConnection(urlsplit(address).netloc)
    client.request("POST", "/generate_endpoint", json.dumps({"prompt": "x", "duration": 30}))
    server.wait_until(lambda servicer: delivered)
    client.close()
    server.wait_until(lambda servicer: delivered[0] in servicer.cancelled)
    server.servicer.on_deliver = None


def test_bad_input_is_refused_before_a_gpu_hears_of_it(server, address):
    before = len(server.servicer.calls)
    answer = httpx2.post(f"{address}/generate_endpoint", json={"prompt": "x", "duration": 45})
    assert answer.status_code == 422 and answer.json()["field"] == "duration"
    assert len(server.servicer.calls) == before
