"""Clips of the live page that are kept become a run folder like any other."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging.handlers
import queue
import shlex
import zipfile

import httpx2
import numpy as np
import pytest

import musicgen_lab as lab
from musicgen_lab.clip import Clip
from musicgen_lab.live.kept import TEMPORARY_MAX, OnceSent, as_sweep
from musicgen_lab.live.recent_clips import RecentClips
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.run_folder import RunFolder
from tests.support.live import live_service
from tests.support.sine_engine import sine_worker
from tests.support.sines import PROVENANCE, sine_clip
from tests.support.sources import hum

FIELDS = {"prompt": "calm 'guitar'", "duration": 1, "seed": 7}
GRID = [{"temperature": t, "cfg_coef": c} for t in (0.7, 1.3) for c in (1, 3)]


@contextlib.contextmanager
def serve(runs):
    """Yield a client of a service that keeps runs in a folder."""
    with (
        live_service(sine_worker(), runs) as address,
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("runs")) as client:
        yield client


@pytest.fixture
def idle_service(tmp_path):
    """A service of which no other report was asked: it makes them one at a time."""
    with serve(tmp_path) as client:
        yield client


def make(service, cells):
    """Make clips, and return the body that keeps them."""
    lines = service.post("/live/clips", json={"fields": FIELDS, "cells": cells}).text.splitlines()
    events = map(json.loads, lines)
    return {"cells": [event["request"] for event in events if event["type"] == "started"]}


def test_a_grid_is_kept_with_its_clips_as_they_were_made(service):
    kept = service.post("/live/kept", json=make(service, GRID)).json()
    results = lab.Results.open(kept["folder"])
    assert results.swept == ("temperature", "cfg_coef")
    assert list(results.frame["status"]) == ["ok"] * 4
    for key in results.frame["key"]:
        clip = results.clip(key)
        np.testing.assert_array_equal(clip.samples, sine_clip(clip.request).samples)


def test_the_command_and_the_python_make_the_same_clips_again(service):
    body = make(service, GRID)
    kept = service.post("/live/kept", json=body).json()
    words = shlex.split(kept["command"])
    assert words[:4] == ["musicgen-lab", "sweep", "--prompt", "calm 'guitar'"]
    assert "--temperature 0.7,1.3 --cfg-coef 1,3 --seed 7" in " ".join(words)
    sweep = eval(kept["python"].splitlines()[2].partition(" = ")[2], {"lab": lab})
    assert {r.with_model("sines@1") for r in sweep.requests} == {
        GenerationRequest(**cell) for cell in body["cells"]
    }


def test_any_set_of_cells_is_kept_as_its_rows(service):
    kept = service.post("/live/kept", json=make(service, [*GRID[:2], {"temperature": 0.9}])).json()
    assert kept["command"] == "" and "Sweep.from_rows([" in kept["python"]
    assert len(lab.Results.open(kept["folder"]).frame) == 3


def test_a_kept_run_is_downloaded_as_a_zip_file(service, tmp_path):
    kept = service.post("/live/kept", json=make(service, GRID[:2])).json()
    answer = service.get(f"/{kept['zip']}")
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{folder.name}.zip"'
    assert len(lab.Results.open(folder).frame) == 2


@pytest.mark.parametrize("part", [b"bytes=0-9", b"bytes=9-0", b"bytes=999999999-"])
def test_a_zip_file_is_removed_when_a_part_of_it_or_none_was_sent(tmp_path, part):
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    (tmp_path / "run.zip").write_bytes(bytes(100))
    scope = {"type": "http", "method": "GET", "headers": [(b"range", part)]}
    scope |= {"asgi": {"spec_version": "2.4"}}  # in which nothing is received meanwhile
    asyncio.run(OnceSent(tmp_path / "run.zip")(scope, None, send))
    assert statuses[0] in (206, 400, 416)
    assert not (tmp_path / "run.zip").exists()


def test_its_report_is_made_and_shown_without_rights_to_the_service(idle_service):
    service = idle_service
    kept = service.post("/live/kept", json=make(service, GRID[:2])).json()
    state = service.get(f"/{kept['state']}").json()
    while state["report"] == "making":  # it is answered when that has changed, or after a while
        state = service.get(f"/{kept['state']}").json()
    assert state == {"report": "made", "detail": ""}
    report = service.get(f"/{kept['report']}")
    assert "calm &#39;guitar&#39;" in report.text or "calm 'guitar'" in report.text
    assert "sandbox allow-scripts" in report.headers["Content-Security-Policy"]
    for path in (kept["state"], kept["report"]):
        assert service.get("/" + path.replace("kept/", "kept/other")).status_code == 404


def test_an_address_that_works_without_the_key_is_not_logged(service):
    kept = service.post("/live/kept", json=make(service, GRID[:1])).json()
    lines = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(lines)
    logger = logging.getLogger("musicgen_lab.service")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        assert service.get(f"/{kept['zip']}").status_code == 200
        while (line := lines.get(timeout=60).getMessage()).count("/live/kept/") == 0:
            pass  # of the requests before
    finally:
        logger.removeHandler(handler)
    assert json.loads(line)["path"].startswith("/live/kept/…/live-")
    assert kept["zip"].split("/")[2] not in line


def test_what_was_not_made_here_cannot_be_kept(service):
    cells = [{**FIELDS, "temperature": 1.9}, {**FIELDS, "temperature": 1.8}]
    answer = service.post("/live/kept", json={"cells": cells})
    assert (
        answer.status_code == 409
        and "2 of these clips are not in memory" in answer.json()["detail"]
    )


def test_a_field_that_did_nothing_is_named_when_it_is_kept(service):
    body = make(service, [{"top_p": 0.9, "top_k": 10}, {"top_p": 0.9, "top_k": 20}])
    answer = service.post("/live/kept", json=body)
    assert answer.status_code == 422 and answer.json()["field"] == "top_k"


def test_equal_cells_are_kept_once(service):
    cells = make(service, GRID[:1])["cells"]
    kept = service.post("/live/kept", json={"cells": [*cells, *cells]}).json()
    assert len(lab.Results.open(kept["folder"]).frame) == 1


def test_without_folders_clips_are_downloaded_as_a_run_folder(tmp_path):
    with (
        live_service(sine_worker()) as address,
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        kept = client.post("/live/kept", json=make(client, GRID)).json()
        assert set(kept) == {"folder", "command", "python", "zip", "instance"}
        zipfile.ZipFile(io.BytesIO(client.get(f"/{kept['zip']}").content)).extractall(tmp_path)
        for number in range(TEMPORARY_MAX):  # older ones make room
            client.post("/live/kept", json=make(client, [{"seed": number}]))
        assert client.get(f"/{kept['zip']}").status_code == 404
    results = lab.Results.open(tmp_path / kept["folder"])
    assert results.swept == ("temperature", "cfg_coef") and set(results.frame["status"]) == {"ok"}
    assert f"--out {kept['folder']}" in kept["command"]


def test_a_blind_test_of_kept_clips_writes_its_answers_to_their_folder(service):
    kept = service.post("/live/kept", json=make(service, GRID)).json()
    page = f"/{kept['blind']}"
    assert "<title>Blind listening</title>" in service.get(page).text
    for name in ("base.css", "page.css", "page.js"):
        assert service.get(page + name).status_code == 200
    who = {"listener": "Ada", "mode": "pairs"}
    trial = service.post(f"{page}trial", json=who).json()
    assert service.get(page + trial["sounds"][0]).content[:4] == b"RIFF"
    reply = who | {"trial": trial["trial"], "choice": "a"}
    assert service.post(f"{page}answer", json=reply).json()["answered"] == 1
    (answer,) = RunFolder(kept["folder"]).answers.read()
    assert (answer.listener, answer.choice) == ("Ada", "a")
    other = service.get(page.replace("kept/", "kept/other"))
    assert other.status_code == 404 and "keep the clips again" in other.json()["detail"]


def test_values_that_are_defaults_are_not_part_of_the_sweep():
    requests = [
        GenerationRequest(prompt="a", seed=s, model="demo@1", temperature=t)
        for s in (1, 2)
        for t in (0.5, 1)
    ]
    sweep = as_sweep(requests)
    assert set(sweep.design["fields"]) == {"prompt", "temperature", "seed"}
    assert [request.with_model("demo@1") for request in sweep.requests] == sorted(
        requests, key=lambda request: (request.temperature, request.seed)
    )


def test_the_oldest_clips_are_forgotten_beyond_the_limit():
    requests = [GenerationRequest(prompt="a", seed=n) for n in range(3)]
    recent = RecentClips(bytes_max=800)
    for request in [*requests, requests[2]]:
        recent.add(Clip(request, np.zeros((1, 100), np.float32), 8000, PROVENANCE, 0.1))
    assert [recent.get(request.key()) is not None for request in requests] == [False, True, True]
    begun = GenerationRequest(prompt="a", begin_with=hum(duration_s=0.5))
    recent.add(Clip(begun, np.zeros((1, 100), np.float32), 8000, PROVENANCE, 0.1))
    assert recent.get(begun.key()) is None  # the sound it begins with counts too
