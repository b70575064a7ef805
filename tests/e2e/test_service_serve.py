"""How `serve` ends, and what it says when it starts."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.support.command import MUSICGEN_LAB, run_command

SERVER = [MUSICGEN_LAB, "serve", "--port", "0"]
CLIENTS = 3


def post(address, seed):
    body = {"prompt": "calm acoustic guitar melody", "duration": 4, "seed": seed}
    return httpx2.post(f"{address}/generate_endpoint", json=body, timeout=240).status_code


def in_flight(address):
    return httpx2.get(f"{address}/health?deep=1", timeout=60).json()["backend"]["in_flight"]


@pytest.mark.parametrize(("drain_s", "answers"), [(200, {200}), (0, {503})])
def test_running_requests_finish_in_time_or_are_answered_503(drain_s, answers):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        subprocess.Popen(
            [*SERVER, "--drain", str(drain_s)], stdout=subprocess.PIPE, text=True, env=environment
        ) as server,
        ThreadPoolExecutor() as clients,
    ):
        try:
            address = server.stdout.readline().split()[-1]
            asked = [clients.submit(post, address, seed) for seed in range(CLIENTS)]
            while in_flight(address) < CLIENTS:
                assert not any(answer.done() for answer in asked), "asked too late"
            server.send_signal(signal.SIGTERM)
            assert {answer.result() for answer in asked} == answers
            assert server.wait(timeout=240) == 0
        finally:
            server.kill()


BROKEN_DEVICE = """
import sys
from musicgen_lab.cli import main
from musicgen_lab.engine.engine import Engine

def step(self):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

Engine.step, Engine.device_works = step, lambda self: False
sys.argv = ["musicgen-lab", "serve", "--port", "0"]
main()
"""


def test_a_lost_device_makes_it_unready_and_its_end_a_failure():
    with subprocess.Popen(
        [sys.executable, "-c", BROKEN_DEVICE],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            address = server.stdout.readline().split()[-1]
            assert httpx2.get(f"{address}/health?deep=1").status_code == 200
            answer = httpx2.post(f"{address}/generate_endpoint", json={"prompt": "x"}, timeout=60)
            assert answer.status_code == 503 and answer.json()["error_type"] == "EngineLost"
            assert answer.headers["Retry-After"]
            assert httpx2.get(f"{address}/health?deep=1").status_code == 503
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=240)
        finally:
            server.kill()
    assert server.returncode == 1 and "error: cpu stopped working" in log
    failed = json.loads(next(line for line in log.splitlines() if '"status": 503' in line))
    assert failed["request_id"] == answer.json()["request_id"]
    assert "illegal memory access" in failed["traceback"]


@pytest.mark.parametrize(
    ("options", "key", "warned"),
    [(["--host", "0.0.0.0"], None, True), (["--host", "0.0.0.0"], "k", False), ([], None, False)],
)
def test_it_says_where_it_serves_and_warns_when_everybody_may_use_it(options, key, warned):
    environment = {**os.environ, **({"MUSICGEN_API_KEY": key} if key else {})}
    with subprocess.Popen(
        [*SERVER, "--device", "cpu", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as server:  # fmt: skip
        try:
            said = server.stdout.readline()
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=240)
        finally:
            server.kill()
    assert said.startswith("serving demo on the CPU at http://")
    assert server.returncode == 0
    assert ("warning: anyone who can reach 0.0.0.0 can use this service" in log) == warned


def test_an_empty_key_is_one_line_of_error_and_no_open_door():
    done = run_command("serve", env={**os.environ, "MUSICGEN_API_KEY": ""})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: MUSICGEN_API_KEY is set, but holds no key")
    assert done.stderr.count("\n") == 1
