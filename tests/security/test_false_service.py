"""Whatever a service answers, a sweep ends with rows: no answer is stored that cannot be a clip."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from musicgen_lab.backends.http import HttpBackend
from musicgen_lab.backends.wire import FORMAT, pack, unpack
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import BackendUnavailable
from musicgen_lab.fields import TOP_K_MAX
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.sweep import Sweep
from tests.support.command import run_here
from tests.support.serving import running
from tests.support.sine_engine import sine_worker
from tests.support.sines import MODEL, PROVENANCE, sine_clip

RATE = 16_000
MEGABYTE = "x" * 1_000_000


def sound(frames=RATE, *, rate=RATE, channels=1, fill=0.1, kind="WAV", subtype="FLOAT"):
    data = io.BytesIO()
    samples = np.full((frames, channels), fill, np.float32)
    soundfile.write(data, samples, rate, format=kind, subtype=subtype)
    return base64.b64encode(data.getvalue()).decode()


SOUNDS = {
    "not a number": sound(fill=np.nan),
    "infinite": sound(fill=np.inf),
    "empty": sound(0),
    "ten samples": sound(10),
    "1 Hz": sound(1, rate=1),
    "a million Hz": sound(1_000_000, rate=1_000_000),
    "three channels": sound(channels=3),
    "too long": sound(3 * RATE),
    "hours in a few bytes": sound(3600 * 8000, rate=8000, fill=0, kind="FLAC", subtype="PCM_16"),
    "no sound": base64.b64encode(b"RIFF\xff\xff\xff\xffWAVEfmt ").decode(),
    "no base64": "****",
    "null": None,
}
PROVENANCES = {
    "details null": asdict(PROVENANCE) | {"details": None},
    "details a list": asdict(PROVENANCE) | {"details": [1]},
    "details deep": asdict(PROVENANCE) | {"details": {"a": [[[[[]]]]]}},
    "details large": asdict(PROVENANCE) | {"details": {"a": MEGABYTE}},
    "engine a megabyte": asdict(PROVENANCE) | {"engine": MEGABYTE},
    "dtype a command": asdict(PROVENANCE) | {"dtype": "float16; touch /tmp/x"},
    "cost a text": asdict(PROVENANCE) | {"details": {"cost_usd": "free"}},
    "unknown field": asdict(PROVENANCE) | {"__class__": "os"},
    "none": None,
}
FIELDS = {
    "another seed": {"seed": 99},
    "another model": {"model": "somebody/else@1"},
    "elapsed a text": {"elapsed_s": "soon"},
    "elapsed null": {"elapsed_s": None},
}
BODIES = {
    "a megabyte of message": (502, {"error_type": "E", "message": MEGABYTE}),
    "a megabyte of type": (502, {"error_type": MEGABYTE, "message": "m"}),
    "message a list": (502, {"error_type": [1], "message": [[1]]}),
    "detail a megabyte": (422, {"detail": MEGABYTE}),
    "a list": (200, [1, 2]),
    "no JSON": (200, None),
    "nothing": (500, {}),
}
JOBS = {
    "steps a text": {"status": "running", "steps": "x", "steps_done": "y"},
    "more steps than there are": {"status": "running", "steps": 1, "steps_done": 1e300},
    "status a list": {"status": ["done"]},
    "status unknown": {"status": MEGABYTE},
    "no result": {"status": "done"},
    "result a text": {"status": "done", "result": "sound"},
    "failed without words": {"status": "failed"},
    "failed with a megabyte": {"status": "failed", "error_type": MEGABYTE, "message": MEGABYTE},
    "no object": [],
}
IDS = {"id a megabyte": MEGABYTE, "id with a line break": "a\r\nHost: b", "id a path": "../models"}
ANSWERS = [*JOBS, *IDS, *SOUNDS, *PROVENANCES, *FIELDS, *BODIES]


def false_answer(name, request):
    status, body = 200, {
        "audio_base64": sound(),
        "seed": request["seed"],
        "model": request["model"],
        "elapsed_s": 0.5,
        "provenance": asdict(PROVENANCE),
    }  # fmt: skip
    if name in SOUNDS:
        body["audio_base64"] = SOUNDS[name]
    elif name in PROVENANCES:
        body["provenance"] = PROVENANCES[name]
    elif name in FIELDS:
        body |= FIELDS[name]
    elif name in BODIES:
        status, body = BODIES[name]
    content = "<html>" if body is None else json.dumps(body)
    return Response(content, status, media_type="application/json")


@pytest.fixture(scope="module")
def service():
    app = FastAPI()
    app.state.backend = sine_worker()

    @app.get("/models")
    def models():
        return {"format": FORMAT, "models": [MODEL]}

    @app.post("/generate_endpoint")
    async def generate(request: Request):
        wanted = await request.json()
        name = wanted["prompt"]
        if name in JOBS or name in IDS:
            return JSONResponse({"id": IDS.get(name, name)}, 202)
        return false_answer(wanted["prompt"], wanted)

    @app.get("/generate_endpoint/{job_id:path}")
    def job(job_id: str):
        return JSONResponse(JOBS.get(job_id, {"status": "failed"}))

    with running(app) as address:
        yield address


def test_false_answers_are_rows_that_failed_and_true_ones_are_kept(service, tmp_path, tried):
    backend = HttpBackend(service)
    sweep = Sweep(prompt=[*ANSWERS, "a true answer"], duration=1, seed=1)

    sweep.run(backend, tmp_path / "run", progress=False)
    backend.close()

    rows = RunTable.open(tmp_path / "run").frame.set_index("prompt")
    stored = [name for name in ANSWERS if rows["status"][name] != "failed"]
    tried("false answers of a service", len(ANSWERS), stored)
    assert rows["status"]["a true answer"] == "ok"
    assert rows["error"].str.len().max() < 2500


def test_a_body_that_never_ends_is_not_read_to_its_end(service, monkeypatch):
    monkeypatch.setattr("musicgen_lab.backends.http_client.ANSWER_MAX_BYTES", 10_000)
    backend = HttpBackend(service)
    request = backend.resolve(GenerationRequest(prompt="a true answer", duration=1, seed=1))

    error = backend.submit(request).exception()

    backend.close()
    assert "sent more than 10,000 bytes" in str(error)


def test_an_answer_of_a_deployment_is_checked_in_the_same_way():
    request = GenerationRequest(prompt="x", duration=1, seed=3).with_model(MODEL)
    clip = sine_clip(request)
    silent = replace(clip, samples=clip.samples * np.float32("nan"))

    assert isinstance(unpack(pack(clip), request), Clip)
    for message in (
        pack(silent),
        {**pack(clip), "provenance": None},
        {**pack(clip), "request": {}},
        {**pack(clip), "wav": "text"},
        {"format": FORMAT},
    ):
        assert isinstance(unpack(message, request), Failure)


@pytest.mark.parametrize("models", [None, 5, [], "demo@1", {"a": 1}, ["m"] * 1000, [" "], [5]])
def test_a_service_with_no_list_of_models_is_told_from_one_of_ours(models):
    app = FastAPI()
    app.state.backend = sine_worker()
    app.get("/models")(lambda: {"format": FORMAT, "models": models})
    with running(app) as address:
        backend = HttpBackend(address)
        with pytest.raises(BackendUnavailable, match="is not a MusicGen Lab service"):
            backend.resolve(GenerationRequest(prompt="x"))
        backend.close()


def test_what_a_service_says_does_not_steer_the_terminal(tmp_path):
    app = FastAPI()
    app.state.backend = sine_worker()
    app.get("/models")(lambda: JSONResponse({"detail": "\x1b[2J\x9b31m\r\n gone"}, 500))
    with running(app) as address:
        done = run_here("sweep", "--backend", address, "--prompt", "x", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "answered 500: ?[2J?31m gone; " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("longest", [10**400, -1, True, "30", None, [30]])
def test_a_longest_clip_that_cannot_be_is_no_error(longest):
    app = FastAPI()
    app.state.backend = sine_worker()
    app.get("/models")(lambda: {"format": FORMAT, "models": [MODEL], "duration_max_s": longest})
    with running(app) as address:
        backend = HttpBackend(address)
        assert backend.resolve(GenerationRequest(prompt="x", duration=30)).model == MODEL
        backend.close()


@pytest.mark.parametrize("sizes", [None, MEGABYTE, {MODEL: 0}, {MODEL: True}, {MODEL: 1e9}])
def test_a_size_of_codebooks_that_cannot_be_is_not_known(sizes):
    app = FastAPI()
    app.state.backend = sine_worker()
    app.get("/models")(lambda: {"format": FORMAT, "models": [MODEL], "codebook_sizes": sizes})
    with running(app) as address:
        backend = HttpBackend(address)
        assert backend.codebook_size(MODEL) == TOP_K_MAX
        backend.close()
