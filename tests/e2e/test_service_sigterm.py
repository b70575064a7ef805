"""SIGTERM while clips are being made: every client is answered, and the process ends."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.support.command import MUSICGEN_LAB

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
            assert server.wait(timeout=240) in (0, -signal.SIGTERM)
        finally:
            server.kill()
