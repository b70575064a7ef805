"""The contract's own examples, from the document's text with only the host replaced.

They run against `musicgen-lab serve` with the embedded model.
"""

import json
import shutil
import subprocess
import sys

import httpx2
import pytest
import soundfile

from tests.support.command import MUSICGEN_LAB
from tests.support.contract import HOST, blocks

SERVER = [MUSICGEN_LAB, "serve", "--port", "0"]


@pytest.fixture(scope="module")
def address():
    blocks("json")  # skips before a server is started
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


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
    assert httpx2.get(f"{address}/health").json() == {**documented, "model": "demo"}
