"""The contract's own examples, from the document's text with only the host replaced.

They run with the embedded model against `musicgen-lab serve`, and against what the contract's own
`modal deploy` put onto an in-memory Modal server.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys

import httpx2
import pytest
import soundfile

from tests.modal_server.deployed import run_documented
from tests.modal_server.server import modal_server
from tests.support.command import MUSICGEN_LAB
from tests.support.contract import HOST, blocks

SERVER = [MUSICGEN_LAB, "serve", "--port", "0"]


@pytest.fixture(scope="module", params=["musicgen-lab serve", "modal deploy app.py"])
def address(request, tmp_path_factory):
    start = on_modal if request.param.startswith("modal") else on_this_machine
    with start(tmp_path_factory) as address:
        yield address


@contextlib.contextmanager
def on_this_machine(_):
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


@contextlib.contextmanager
def on_modal(tmp_path_factory):
    deploy, _ = blocks("bash")["Deployment"]
    assert deploy == "modal deploy app.py"
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        done = run_documented(deploy, server)
        assert done.returncode == 0, done.stdout + done.stderr
        yield re.search(r"http://127.0.0.1:\d+", done.stdout)[0]


def run(command, folder):
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=280)


def test_the_python_example_writes_ten_seconds_at_32_khz(address, tmp_path):
    (example,) = blocks("python")["Python"]
    assert HOST in example
    run([sys.executable, "-c", example.replace(HOST, address)], tmp_path)
    info = soundfile.info(tmp_path / "output.wav")
    assert (info.samplerate, info.duration, info.format) == (32_000, 10.0, "WAV")


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed"
)
def test_the_curl_example_writes_eight_seconds_at_32_khz(address, tmp_path):
    (example,) = blocks("bash")["cURL"]
    assert HOST in example
    run(["bash", "-o", "pipefail", "-c", example.replace(HOST, address)], tmp_path)
    info = soundfile.info(tmp_path / "output.wav")
    assert (info.samplerate, info.duration, info.format) == (32_000, 8.0, "WAV")


def test_the_documented_request_gets_every_field_of_the_documented_response(address):
    request, response = map(json.loads, blocks("json")["Generate Music (POST)"])
    answer = httpx2.post(f"{address}/generate_endpoint", json=request, timeout=280)
    assert answer.status_code == 200
    got = answer.json()
    assert {**response, "audio_base64": None} == {
        **{name: got[name] for name in response},
        "audio_base64": None,
    }


def test_health_answers_the_documented_fields_and_status(address):
    (documented,) = map(json.loads, blocks("json")["Health Check (GET)"])
    assert httpx2.get(f"{address}/health", timeout=120).json() == {**documented, "model": "demo"}
