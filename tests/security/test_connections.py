"""Clients that send half a request, read no answer, or leave: no connection stays open."""

from __future__ import annotations

import json
import logging
import socket
from urllib.parse import urlsplit

import pytest

from musicgen_lab.web.settings import WebSettings
from tests.support.serving import serving
from tests.support.sine_engine import sine_worker

COPIES = 20
POST = b"POST /generate_endpoint HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
HALVES = {
    "nothing": b"",
    "half a line": POST[:9],
    "half a head": POST,
    "half a body": POST + b"Content-Length: 99\r\n\r\n{",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n40\r\n{",
    "a body of a request that has none": GET + b"Content-Length: 99\r\n\r\n{",
    "a body that is refused unread": POST + b"Content-Length: 999999\r\n\r\n{",
    "half a second request": GET + b"\r\n" + GET,
    "a promise": POST + b"Expect: 100-continue\r\nContent-Length: 99\r\n\r\n",
    "a websocket": GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}
STAYED_S = 60  # longer than every limit by far


def connect(address):
    host, port = urlsplit(address).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=STAYED_S)


def closed_by_server(connection):
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_half_sent_requests_end_with_their_connections(tried):
    with serving(sine_worker(), settings=WebSettings(read_timeout_s=0.2)) as address:
        opened = [(name, connect(address)) for name in HALVES for _ in range(COPIES)]
        for name, connection in opened:
            connection.sendall(HALVES[name])
        stayed = [name for name, connection in opened if not closed_by_server(connection)]
    tried("half-sent requests", len(opened), stayed)


def test_an_answer_that_nobody_reads_ends_its_connection():
    body = json.dumps({"prompt": "x", "duration": 30, "seed": 1}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with (
        serving(sine_worker(), settings=WebSettings(read_timeout_s=0.2)) as address,
        socket.socket() as connection,  # closed first
    ):
        host, port = urlsplit(address).netloc.split(":")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(STAYED_S)
        connection.connect((host, int(port)))
        connection.sendall(request * 20)  # more than the system itself keeps for a client
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(request)


def test_a_client_that_disconnects_while_sending_is_no_failure_of_the_service(caplog, tried):
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    with serving(sine_worker()) as address:
        for name in ("half a body", "half a chunk", "a promise"):
            for _ in range(COPIES):
                with connect(address) as connection:
                    connection.sendall(HALVES[name])
    statuses = [json.loads(line)["status"] for line in caplog.messages]
    tried("clients that leave while they send", 3 * COPIES, [s for s in statuses if s != 499])
    assert len(statuses) == 3 * COPIES
