"""The web app when clients leave, when it is full, slow, or shutting down."""

import contextlib
import http.client
import json
import logging
import socket
import threading
from concurrent.futures import Future
from urllib.parse import urlsplit

import httpx2
import pytest

from musicgen_lab.backends.submitting import Busy, Closing, EngineLost, ModelLoading
from musicgen_lab.clip import Failure
from musicgen_lab.web.app import create_app
from musicgen_lab.web.connections import LimitedConnection
from musicgen_lab.web.settings import WebSettings
from tests.support.serving import running, serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import MODEL, sine_clip

AS_JSON = {"Content-Type": "application/json"}
BODY = {"prompt": "x", "duration": 1, "seed": 1}
WAIT_S = 60  # for what must happen; nothing is asserted about how long it takes


class HeldBackend:
    """Accepts requests, and finishes them only on request."""

    max_clips, name = 1, "held"

    def __init__(self):
        self.futures, self.taken, self.left = [], threading.Semaphore(0), threading.Semaphore(0)
        self.refusal = None

    def resolve(self, request):
        return request.with_model(MODEL)

    def codebook_size(self, model):
        return 2048

    def progress(self, future):
        return None

    def check(self): ...

    def describe(self):
        return {"in_flight": 3}

    def submit(self, request, on_chunk=None):
        if self.refusal is not None:
            raise self.refusal
        future = Future()
        future.request = request
        future.add_done_callback(lambda done: self.left.release() if done.cancelled() else None)
        self.futures.append(future)
        self.taken.release()
        return future

    def close(self, drain_s=0.0):
        for future in self.futures:
            if not future.done():
                future.set_exception(Closing("the service shut down before this was made"))


def send(address):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=WAIT_S)
    connection.request("POST", "/generate_endpoint", json.dumps(BODY), AS_JSON)
    return connection


def test_a_client_that_disconnects_frees_its_slot_and_affects_no_other():
    backend = HeldBackend()
    with serving(backend) as address:
        leaving, staying = send(address), send(address)
        assert all(backend.taken.acquire(timeout=WAIT_S) for _ in range(2))
        leaving.close()
        assert backend.left.acquire(timeout=WAIT_S)
        (waiting,) = [future for future in backend.futures if not future.cancelled()]
        waiting.set_result(sine_clip(waiting.request))
        assert staying.getresponse().status == 200


def test_a_clip_that_takes_too_long_is_answered_504_and_given_up():
    backend = HeldBackend()
    with serving(backend, settings=WebSettings(timeout_s=0.01)) as address:
        answer = httpx2.post(f"{address}/generate_endpoint", json=BODY)
        assert answer.status_code == 504 and "0.01 s" in answer.json()["detail"]
        assert backend.left.acquire(timeout=WAIT_S)


def test_a_clip_that_outlasts_a_call_is_answered_503_with_what_to_do_instead():
    """Modal ends a call with a redirect after 150 s, which the documented curl does not follow."""
    backend = HeldBackend()
    with serving(backend, settings=WebSettings(answer_within_s=0.01)) as address:
        answer = httpx2.post(f"{address}/generate_endpoint", json=BODY)
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert "Prefer: respond-async" in answer.json()["detail"]
        assert backend.left.acquire(timeout=WAIT_S)


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (Busy("9 wait", retry_after_s=7), 429, "7"),
        (Closing("shutting down"), 503, "5"),
        (EngineLost("lost"), 503, "5"),
        (ModelLoading(40), 503, "40"),
    ],
)
def test_a_rejected_request_gets_the_time_after_which_to_retry(refusal, status, retry_after):
    backend = HeldBackend()
    backend.refusal = refusal
    with serving(backend) as address:
        answer = httpx2.post(f"{address}/generate_endpoint", json=BODY)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, retry_after)
    assert str(refusal) == answer.json()["detail"]


def test_beyond_the_limit_a_request_is_refused_until_a_slot_is_free():
    backend = HeldBackend()
    with serving(backend, settings=WebSettings(waiting_max=1)) as address:
        making, waiting = send(address), send(address)
        assert all(backend.taken.acquire(timeout=WAIT_S) for _ in range(2))
        answer = httpx2.post(f"{address}/generate_endpoint", json=BODY)
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1
        assert "2 requests are being made or wait" in answer.json()["detail"]
        first = backend.futures[0]
        first.set_result(sine_clip(first.request))
        assert making.getresponse().status == 200
        third = send(address)
        assert backend.taken.acquire(timeout=WAIT_S)
        waiting.close(), third.close()


@pytest.mark.parametrize(
    ("error_type", "status"),
    [
        ("Timeout", 504),
        ("ContainerLost", 503),
        ("EngineLost", 503),
        ("ResourceExhausted", 503),
        ("RemoteError", 502),
    ],
)
def test_what_befell_a_request_on_modal_is_not_blamed_on_it(error_type, status):
    class Unlucky(SineEngine):
        def make(self, request):
            return Failure(request, error_type, "its container was lost")

    with serving(sine_worker(Unlucky())) as address:
        answer = httpx2.post(f"{address}/generate_endpoint", json=BODY)
    assert answer.status_code == status and "was lost" in answer.json()["detail"]
    assert answer.json()["error_type"] == error_type
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_what_runs_when_the_backend_closes_is_answered_503():
    backend = HeldBackend()
    with serving(backend) as address:
        connection = send(address)
        assert backend.taken.acquire(timeout=WAIT_S)
        backend.close()
        answer = connection.getresponse()
        assert answer.status == 503 and answer.headers["Retry-After"]


def test_health_checks_the_model_only_with_deep():
    with serving(HeldBackend()) as address:
        assert "backend" not in httpx2.get(f"{address}/health").json()
        assert httpx2.get(f"{address}/health?deep=1").json()["backend"] == {"in_flight": 3}


HEAD = b"POST /generate_endpoint HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def exchange(address, sent):
    """Send bytes, and return everything until the server closes the connection."""
    host, port = urlsplit(address).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("sent", [b"", HEAD[:20], HEAD])
def test_a_head_that_does_not_arrive_in_time_ends_its_connection(sent):
    settings = WebSettings(read_timeout_s=0.05)
    with (
        serving(HeldBackend(), settings=settings) as address,
        contextlib.suppress(ConnectionResetError),
    ):
        assert exchange(address, sent) == b""


def test_a_body_that_does_not_arrive_in_time_is_answered_408():
    with serving(HeldBackend(), settings=WebSettings(read_timeout_s=0.05)) as address:
        answer = exchange(address, HEAD + b"Content-Length: 20\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408") and b"within 0.05 s" in answer


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent():
    with serving(HeldBackend()) as address:
        answer = exchange(
            address, HEAD + b"Connection: close\r\nContent-Length: 1000000000\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 413") and b"65,536 bytes" in answer


def test_a_connection_too_many_is_refused_in_json_and_those_before_it_are_served(caplog):
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    app = create_app(HeldBackend())
    with (
        running(app, http=LimitedConnection, limit_concurrency=1) as address,
        httpx2.Client(base_url=address) as first,
    ):
        assert first.get("/health").status_code == 200
        refused = httpx2.post(f"{address}/generate_endpoint", json=BODY)
        assert refused.status_code == 503 and "too many connections" in refused.json()["detail"]
        assert refused.headers["Retry-After"] and refused.headers["Connection"] == "close"
        assert first.get("/health").status_code == 200
    lines = {line["request_id"]: line for line in map(json.loads, caplog.messages)}
    assert lines[refused.json()["request_id"]]["status"] == 503
