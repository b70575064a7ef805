"""Jobs: started, polled and cancelled over real HTTP."""

import base64
import json
import logging
import threading
import time

import httpx2
import pytest

from musicgen_lab.backends.jobs import JobExpired, JobUnknown, LocalJobs
from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import decode_audio
from musicgen_lab.request import GenerationRequest
from musicgen_lab.web.settings import WebSettings
from tests.support.demo_engine import open_demo
from tests.support.serving import serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import MODEL, sine_clip

BODY = {"prompt": "calm acoustic guitar melody", "duration": 1, "seed": 3}
ASYNC = {"Prefer": "respond-async"}
FINISHED = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def demo():
    """Yield a client of the embedded model, with one slot."""
    with (
        serving(open_demo(max_clips=1)) as address,
        httpx2.Client(base_url=address, timeout=120) as client,
    ):
        yield client


def start(client, **fields):
    answer = client.post("/generate_endpoint", json={**BODY, **fields}, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer


def look_until(client, url, states):
    while (body := client.get(url).json())["status"] not in states:
        time.sleep(0.02)  # a client's pause between two looks: nothing depends on its length
    return body


def test_a_job_is_started_at_once_and_ends_with_the_same_clip_as_waiting_gives(demo):
    answer = start(demo, top_p=0.9, top_k=50)
    started = answer.json()
    assert answer.headers["Location"] == started["url"]
    assert answer.headers["Preference-Applied"] == "respond-async"
    done = look_until(demo, started["url"], FINISHED)
    assert done["id"] == started["id"] and done["steps_done"] == done["steps"] > 0
    waited = demo.post("/generate_endpoint", json={**BODY, "top_p": 0.9, "top_k": 50}).json()
    assert done["result"]["warnings"] == started["warnings"] == waited["warnings"] != []
    assert {**done["result"], "elapsed_s": 0} == {**waited, "elapsed_s": 0}


def test_a_finished_jobs_sound_comes_in_the_accepted_type_and_exactly(demo):
    url = start(demo).json()["url"]
    look_until(demo, url, FINISHED)
    sound = demo.get(url, headers={"Accept": "audio/wav"}, params={"sample_format": "FLOAT"})
    assert sound.headers["Content-Type"] == "audio/wav" and sound.headers["MusicGen-Seed"] == "3"
    waited = demo.post("/generate_endpoint", json=BODY, params={"sample_format": "FLOAT"}).json()
    assert sound.content == base64.b64decode(waited["audio_base64"])
    assert decode_audio(sound.content)[0].shape == (1, 32_000)


def test_progress_counts_steps_and_a_cancelled_job_frees_its_slot(demo):
    running = start(demo, duration=30).json()["url"]
    waiting = start(demo, duration=30).json()["url"]
    progress = look_until(demo, running, ("running",))
    assert 0 < progress["steps_done"] < progress["steps"]
    assert demo.get(waiting).json()["status"] == "queued"
    early = demo.get(running, headers={"Accept": "audio/wav"})
    assert early.status_code == 409 and "running" in early.json()["detail"]
    for url in (running, waiting):
        assert demo.delete(url).json()["status"] == "cancelled"
        assert demo.get(url).json()["status"] == "cancelled"
    assert look_until(demo, start(demo).json()["url"], FINISHED)["status"] == "done"


def test_cancelling_an_ended_job_does_not_change_it(demo):
    url = start(demo).json()["url"]
    look_until(demo, url, FINISHED)
    assert demo.delete(url).json()["status"] == "done"
    assert demo.get(url).json()["status"] == "done"


def test_an_id_that_there_is_not_is_answered_404(demo):
    for answer in (demo.get("/generate_endpoint/nothing"), demo.delete("/generate_endpoint/no")):
        assert answer.status_code == 404 and "no job" in answer.json()["detail"]


def test_a_result_is_kept_for_its_time_and_then_answered_410():
    settings = WebSettings(jobs_kept_s=0)
    with serving(sine_worker(), settings=settings) as address, httpx2.Client() as client:
        client.base_url = address
        url = start(client).json()["url"]
        while (answer := client.get(url)).status_code == 200:
            time.sleep(0.02)
    assert answer.status_code == 410 and "no longer kept" in answer.json()["detail"]


def test_a_failed_job_reports_its_error_and_returns_no_audio():
    with serving(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        url = start(client, prompt="fail").json()["url"]
        failed = look_until(client, url, FINISHED)
        assert failed["status"] == "failed" and failed["error_type"] == "MemoryError"
        sound = client.get(url, headers={"Accept": "audio/wav"})
        assert sound.status_code == 502 and sound.json()["error_type"] == "MemoryError"


class HeldEngine(SineEngine):
    """Makes nothing until its gate is opened."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def step(self):
        self.gate.wait()
        return super().step()


def test_jobs_are_behind_the_key():
    settings = WebSettings(api_key="k")
    with serving(sine_worker(), settings=settings) as address:
        key = {"Authorization": "Bearer k"}
        with httpx2.Client(base_url=address, headers=key) as client:
            url = start(client).json()["url"]
        assert httpx2.get(url).status_code == httpx2.delete(url).status_code == 401


def test_a_job_counts_against_the_limit_and_in_the_metrics_in_every_backend():
    """On Modal, jobs do not pass through the backend of the requests that are waited for."""
    engine = HeldEngine()
    worker = EngineWorker(engine, MODEL)
    jobs = LocalJobs(worker.submit, worker.progress, kept_s=3600, kept_max=2)
    settings = WebSettings(waiting_max=0)
    with (
        serving(sine_worker(), jobs=jobs, settings=settings) as address,
        httpx2.Client(base_url=address) as client,
    ):
        url = start(client).json()["url"]
        for headers in (ASYNC, {}):
            full = client.post("/generate_endpoint", json=BODY, headers=headers)
            assert full.status_code == 429 and full.headers["Retry-After"]
        assert "musicgen_clips_in_progress 1.0" in client.get("/metrics").text
        engine.gate.set()
        look_until(client, url, FINISHED)
        while client.post("/generate_endpoint", json=BODY).status_code == 429:
            pass  # its place is free a moment after its end can be seen
        metrics = client.get("/metrics").text
    assert "musicgen_clips_in_progress 0.0" in metrics
    assert "musicgen_audio_seconds_total 2.0" in metrics
    worker.close()


def test_a_cancelled_job_frees_its_slot():
    engine = HeldEngine()
    settings = WebSettings(waiting_max=0)
    with (
        serving(EngineWorker(engine, MODEL), settings=settings) as address,
        httpx2.Client(base_url=address) as client,
    ):
        assert client.delete(start(client).json()["url"]).json()["status"] == "cancelled"
        start(client)
        engine.gate.set()


def test_a_job_that_fails_is_logged_then_under_the_id_of_the_request_that_started_it(caplog):
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    with serving(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        started = client.post(
            "/generate_endpoint",
            json={**BODY, "prompt": "fail"},
            headers={**ASYNC, "X-Request-Id": "from-a-client"},
        ).json()
        assert client.post("/generate_endpoint", json=BODY).status_code == 200  # made after it
    lines = [json.loads(record.message) for record in caplog.records]
    (failed,) = [line for line in lines if line["status"] == "failed"]
    assert (failed["request_id"], failed["job"]) == ("from-a-client", started["id"])
    assert failed["error"] == "MemoryError" and "in make" in failed["traceback"]


def test_the_oldest_results_expire_first_and_expired_ids_differ_from_unknown_ones():
    worker = sine_worker()
    jobs = LocalJobs(worker.submit, worker.progress, kept_s=3600, kept_max=2)
    requests = [GenerationRequest(prompt="x", duration=1, seed=seed) for seed in range(3)]
    ids = []
    for request in requests:
        ids.append(jobs.start(request.with_model(MODEL)).id)
        while jobs.status(ids[-1]).state != "done":
            time.sleep(0.001)
    with pytest.raises(JobExpired, match="the last 2"):
        jobs.status(ids[0])
    assert [jobs.status(job_id).result.request.seed for job_id in ids[1:]] == [1, 2]
    with pytest.raises(JobUnknown):
        jobs.status("never")
    worker.close()


def test_results_expire_by_their_size_too():
    worker = sine_worker()
    clip_bytes = sine_clip(GenerationRequest(prompt="x", duration=1)).nbytes
    jobs = LocalJobs(
        worker.submit, worker.progress, kept_s=3600, kept_max=9, kept_max_bytes=2 * clip_bytes
    )
    ids = []
    for seed in range(3):
        request = GenerationRequest(prompt="x", duration=1, seed=seed).with_model(MODEL)
        started = jobs.start(request)
        started.result.result(60)
        ids.append(started.id)
    worker.close()  # by then the end of each is written down
    with pytest.raises(JobExpired, match=r"the last 9 are, up to .* MB"):
        jobs.status(ids[0])
    assert [jobs.status(job_id).result.request.seed for job_id in ids[1:]] == [1, 2]
