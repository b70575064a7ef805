"""The service on Modal: the real client, the real container program, an in-memory server."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import modal
import nbformat
import numpy as np
import pytest
import soundfile
from modal._serialization import serialize
from modal.client import _Client
from modal_proto import api_pb2

from musicgen_lab.backends.jobs import JobUnknown
from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.backends.modal_jobs import ModalJobs
from musicgen_lab.clip import Clip
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import (
    BackendUnavailable,
    InvalidRequest,
    ModelUnavailable,
    MusicGenLabWarning,
)
from musicgen_lab.models.checksums import write_checksums
from musicgen_lab.models.locate import EMBEDDED_FOLDER, locate
from musicgen_lab.request import GenerationRequest
from musicgen_lab.sweep import Sweep
from tests.modal_server.deployed import (
    PROJECT,
    clips_sent,
    deploy,
    is_clip,
    request_in,
    run_modal,
    settings,
    use,
)
from tests.modal_server.server import modal_server
from tests.support.contract import blocks
from tests.support.environments import base
from tests.support.sources import hum

Result = api_pb2.GenericResult
PROMPT = "calm acoustic guitar melody"
OTHER_MODEL = "facebook/musicgen-small@4c8334b02c6ec4e8664a91979669a501ec497792"
NOT_CONVERTED = ("MODEL_CARD.md", "figures.json", "training.json")
BETWEEN_LOOKS_S = 0.05  # nothing depends on its length
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "remote_modal.ipynb"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The embedded model and another one, which `prepare` has put into the volume before."""
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        prepared = server.servicer.volume / OTHER_MODEL.replace("/", "--")
        shutil.copytree(EMBEDDED_FOLDER, prepared, ignore=shutil.ignore_patterns(*NOT_CONVERTED))
        write_checksums(prepared)
        deploy(server, MUSICGEN_MODELS=f"{locate('demo').identity},{OTHER_MODEL}")
        yield server
        server.servicer.print_logs()


@pytest.fixture
def backend(server, monkeypatch):
    use(server, monkeypatch)
    backend = ModalBackend()
    yield backend
    backend.close()
    server.servicer.on_deliver = None
    _Client._set_env_client(None)


def test_a_clip_made_on_modal_is_sample_for_sample_the_engines_own(backend):
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=1, seed=3))
    assert request.model == locate("demo").identity
    (clip,) = backend.generate([request])
    assert isinstance(clip, Clip), clip
    (own,) = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu")).generate([request])
    np.testing.assert_array_equal(clip.samples, own.samples)
    assert clip.provenance.details["gpu"] == "CPU"
    assert clip.provenance.details["gpu_s"] > 0
    assert clip.provenance.details["cost_usd"] > 0


def test_clips_that_continue_a_sound_are_the_engines_own_and_it_is_sent_once(
    server, backend, tmp_path
):
    sweep = Sweep(prompt=PROMPT, begin_with=hum(1.0), duration=2, seed=range(3))
    results = sweep.run(backend, tmp_path / "run", progress=False)
    assert list(results.frame["status"]) == ["ok"] * 3, list(results.frame["error"])
    sources = server.servicer.dicts[server.servicer.named_dicts["musicgen-sources"]]
    assert len(sources) == 1
    made = [results.clip(key) for key in results.frame["key"]]
    engine = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu"))
    requests = sweep.plan(backend).requests
    own = {clip.request.seed: clip for clip in engine.generate(requests)}
    for clip in made:
        np.testing.assert_array_equal(clip.samples, own[clip.request.seed].samples)
        np.testing.assert_array_equal(clip.codes, own[clip.request.seed].codes)


def test_what_the_model_does_not_read_is_known_before_a_gpu_is_started(server, backend):
    clips = len(clips_sent(server))
    with pytest.warns(MusicGenLabWarning, match="does not know 静かな in the prompt"):
        Sweep(prompt="静かな guitar", duration=1).plan(backend)
    with pytest.raises(InvalidRequest, match="'静かな曲' and '速いドラム' become the same"):
        Sweep(prompt=["静かな曲", "速いドラム"], duration=1).plan(backend)
    assert backend.read_prompts("somebody/else@1", ["x"]) is None  # not prepared
    assert len(clips_sent(server)) == clips


def test_an_app_without_a_function_of_this_version_is_to_be_deployed_again(
    server, backend, monkeypatch
):
    (app,) = (app for app in server.servicer.apps.values() if app.published)
    monkeypatch.delitem(app.functions, "read_prompts")
    with pytest.raises(BackendUnavailable) as error:
        Sweep(prompt=PROMPT, duration=1).plan(backend)
    assert str(error.value) == (
        "the app 'musicgen' was deployed from another version and lacks a function that this one "
        "calls; deploy it again: `modal deploy service/app.py`"
    )


def test_a_sound_that_the_app_may_have_forgotten_is_sent_again(server, backend, monkeypatch):
    request = backend.resolve(
        GenerationRequest(prompt=PROMPT, begin_with=hum(1.1), duration=2, seed=0)
    )
    list(backend.generate([request]))
    sources = server.servicer.dicts[server.servicer.named_dicts["musicgen-sources"]]
    sources.clear()
    list(backend.generate([request]))
    assert not sources  # it was sent moments ago
    monkeypatch.setattr("musicgen_lab.backends.modal.RESEND_S", -1.0)
    list(backend.generate([request]))
    assert len(sources) == 1


def test_one_deployment_serves_several_models_side_by_side(server, backend):
    request = GenerationRequest(prompt=PROMPT, duration=1, seed=3)
    asked = [request.with_model("facebook/musicgen-small"), request]
    results = list(backend.generate(map(backend.resolve, asked)))
    assert all(isinstance(result, Clip) for result in results), results
    assert {clip.request.model for clip in results} == {locate("demo").identity, OTHER_MODEL}
    assert len(server.servicer.bound.keys() & server.servicer.containers.keys()) == 2


def test_a_sweep_keeps_every_accident_as_a_row_and_is_resumed(
    server, backend, tmp_path, monkeypatch
):
    """Three lost containers, a failed request, one that took too long, a result that is gone."""
    # Modal's client says that a result is gone only when the time of its question is over.
    monkeypatch.setattr("musicgen_lab.backends.modal.POLL_S", 2.0)
    sweep = Sweep(prompt=PROMPT, temperature=[0.7, 1, 1.3], seed=range(3), duration=1)
    accidents = {
        (1.3, 0): ["lose", "lose", "lose"],
        (1.3, 1): [Result(status=Result.GENERIC_STATUS_FAILURE, exception="no room")],
        (0.7, 0): [Result(status=Result.GENERIC_STATUS_TIMEOUT, exception="600 s")],
        (0.7, 1): ["expire"],
    }

    def spoil(input_id, given):
        if not is_clip(given):
            return None
        request = request_in(given)
        left = accidents.get((request["temperature"], request["seed"]))
        return left.pop() if left else None

    server.servicer.on_deliver = spoil
    first = sweep.run(backend, tmp_path / "run", progress=False).frame
    assert not any(accidents.values())
    lost, failed, expired, late = sorted(first["error"].dropna())
    assert lost.startswith("ContainerLost:") and "this happened 3 times" in lost
    assert failed.startswith("RemoteError:") and "no room" in failed and "modal app logs" in failed
    assert expired.startswith("ResultExpired:") and "run the sweep again" in expired
    assert late.startswith("Timeout:") and "MUSICGEN_TIMEOUT" in late
    assert sorted(first[first["status"] == "failed"]["seed"]) == [0, 0, 1, 1]
    plan = sweep.plan(backend, tmp_path / "run")
    assert plan.to_make == 4
    results = sweep.run(backend, tmp_path / "run", progress=False)
    assert set(results.frame["status"]) == {"ok"} and len(results.frame) == 9
    assert sorted(results.frame["attempts"]) == [1] * 5 + [2] * 4
    taken = results.frame[results.frame["attempts"] == 2]
    assert f"{taken['gpu_s'].sum():,.1f} s of CPU" in plan.beside(results)


def test_the_clips_of_a_container_that_is_killed_in_a_sweep_are_made_by_another(server, backend):
    requests = [
        backend.resolve(GenerationRequest(prompt=PROMPT, duration=1, seed=20 + seed))
        for seed in range(4)
    ]
    lost = []

    def kill_once(input_id, given):
        if is_clip(given) and request_in(given)["seed"] == 22 and not lost:
            lost.append(input_id)
            return "lose"
        return None

    server.servicer.on_deliver = kill_once
    results = list(backend.generate(requests))
    assert lost and all(isinstance(result, Clip) for result in results), results
    counts = {c.request.seed: c.provenance.details["containers_lost"] for c in results}
    assert counts == {20: 0, 21: 0, 22: 1, 23: 0}


def test_a_request_that_is_cancelled_here_is_cancelled_on_modal_and_frees_its_slot(server, backend):
    made = backend.describe()["made"]
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=30, seed=1))
    future = backend.submit(request)
    while backend.describe()["in_flight"] == 0:
        assert not future.done()
        time.sleep(BETWEEN_LOOKS_S)
    future.cancel()
    while backend.describe()["in_flight"]:
        time.sleep(BETWEEN_LOOKS_S)
    assert backend.describe()["made"] == made
    (sent,) = [i for call in server.servicer.calls.values() for i, (_, given) in call.inputs.items()
               if is_clip(given) and request_in(given)["duration"] == 30]  # fmt: skip
    assert sent in server.servicer.cancelled


def test_a_clip_is_heard_while_it_is_made_on_modal(backend):
    request = GenerationRequest(prompt=PROMPT, duration=4, seed=3)

    *chunks, last = backend.stream(request)

    assert len(chunks) > 1 and chunks[0].steps_done < chunks[0].steps
    ends = np.cumsum([chunk.samples.shape[1] for chunk in chunks]) / 32_000
    assert [chunk.start_s for chunk in chunks] == [0.0, *ends[:-1]]
    (own,) = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu")).generate([request])
    np.testing.assert_array_equal(last.clip.samples, own.samples)
    assert last.clip.provenance.details["cost_usd"] > 0
    heard = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    np.testing.assert_allclose(heard, own.samples, rtol=0, atol=1e-5)


def test_a_stream_that_is_closed_here_is_cancelled_on_modal_and_frees_its_slot(server, backend):
    made = backend.describe()["made"]
    stream = backend.stream(GenerationRequest(prompt=PROMPT, duration=30, seed=61))
    next(stream)

    stream.close()

    while backend.describe()["in_flight"]:
        time.sleep(BETWEEN_LOOKS_S)
    assert backend.describe()["made"] == made
    (sent,) = [i for call in server.servicer.calls.values() for i, (_, given) in call.inputs.items()
               if is_clip(given) and request_in(given)["seed"] == 61]  # fmt: skip
    assert sent in server.servicer.cancelled


def test_a_stream_that_is_given_up_before_it_begins_is_cancelled_on_modal_as_soon_as_it_does(
    server, backend, monkeypatch
):
    monkeypatch.setattr("musicgen_lab.backends.modal.CANCEL_S", 0.1)
    delivering, gate, sent = threading.Event(), threading.Event(), []

    def hold(input_id, given):
        if is_clip(given):
            sent.append(input_id)
            delivering.set()
            gate.wait(60)

    made = backend.describe()["made"]
    server.servicer.on_deliver = hold
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=30, seed=62))
    future = backend.submit(request, on_chunk=lambda chunk: None)
    assert delivering.wait(60)

    future.cancel()
    backend._loop.settle(1.0)  # longer than a cancellation is waited for elsewhere
    gate.set()

    server.wait_until(lambda servicer: sent[0] in servicer.cancelled)
    while backend.describe()["in_flight"]:
        time.sleep(BETWEEN_LOOKS_S)
    assert backend.describe()["made"] == made


def job_entries():
    return modal.Dict.from_name("musicgen-jobs", create_if_missing=True)


def wait_for(jobs, job_id, *states):
    """Return the first status of a job that is one of these."""
    while True:
        status = jobs.status(job_id)
        if status.state in states:
            return status
        assert status.state in ("queued", "running"), status
        time.sleep(BETWEEN_LOOKS_S)


def test_a_job_is_a_call_on_modal_that_reports_its_progress_and_keeps_its_result(backend):
    jobs = ModalJobs(backend, job_entries())
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=8, seed=40))
    job_id = jobs.start(request, warnings=["top_k does nothing"]).id
    running = wait_for(jobs, job_id, "running", "done")
    done = wait_for(jobs, job_id, "done")
    assert running.steps_done <= running.steps == done.steps_done == done.steps
    assert isinstance(done.result, Clip) and done.result.request == request
    assert done.warnings == ("top_k does nothing",)
    again = ModalJobs(ModalBackend(), job_entries()).status(job_id).result
    np.testing.assert_array_equal(again.samples, done.result.samples)


def test_a_cancelled_job_frees_its_slot_and_an_unknown_id_is_no_job(server, backend):
    jobs = ModalJobs(backend, job_entries())
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=30, seed=41))
    job_id = jobs.start(request).id
    wait_for(jobs, job_id, "running")
    assert jobs.cancel(job_id).state == "cancelled"
    (sent,) = (i for i in server.servicer.calls[job_id].inputs)
    assert sent in server.servicer.cancelled
    while backend.describe()["in_flight"]:
        time.sleep(BETWEEN_LOOKS_S)
    with pytest.raises(JobUnknown):
        jobs.status(f"{job_id}/progress")
    with pytest.raises(JobUnknown):
        jobs.status("fc-000000")


def test_a_job_that_cannot_be_recorded_is_cancelled(server, backend):
    class Unreachable:
        def put(self, key, value):
            raise modal.exception.ConnectionError("the network is down")

    jobs = ModalJobs(backend, Unreachable())
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=30, seed=42))
    before = set(server.servicer.calls)
    with pytest.raises(BackendUnavailable, match="Modal cannot be reached"):
        jobs.start(request)
    (call,) = set(server.servicer.calls) - before
    assert set(server.servicer.calls[call].inputs) <= set(server.servicer.cancelled)


def test_the_documented_run_command_works_unchanged_from_the_services_folder(server, tmp_path):
    (command,) = blocks("bash")["Local Testing"]
    words = shlex.split(command)
    assert words[:3] == ["modal", "run", "app.py"]
    out = tmp_path / "clip.wav"
    done = run_modal(server, *words[1:], "--out", out, cwd=PROJECT / "service", **settings())
    assert done.returncode == 0, done.stdout + done.stderr
    info = soundfile.info(out)
    assert (info.samplerate, info.duration) == (32_000, 10.0)
    assert str(out) in done.stdout and re.search(r"seed \d+", done.stdout)


def test_every_option_of_modal_run_arrives(server, tmp_path):
    seen = []

    def listen(input_id, given):
        if is_clip(given):
            seen.append(request_in(given))

    server.servicer.on_deliver = listen
    options = {"duration": 1.5, "temperature": 0.5, "top_k": 7, "top_p": 0.3, "cfg_coef": 2.5}
    options |= {"seed": 11, "model": "demo"}
    words = [w for n, v in options.items() for w in (f"--{n.replace('_', '-')}", v)]
    command = ["run", "service/app.py", "--prompt", PROMPT, "--out", tmp_path / "a.wav"]
    done = run_modal(server, *command, *words, **settings())
    server.servicer.on_deliver = None
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen == [{"prompt": PROMPT, **options}]


def test_prepare_fills_the_volume_before_the_first_request_does(server):
    before = len(server.servicer.committed)
    done = run_modal(server, "run", "service/app.py::prepare", **settings())
    assert done.returncode == 0, done.stdout + done.stderr
    committed = server.servicer.committed[before:]
    assert [server.servicer.volumes[i] for i in committed] == ["musicgen-models"]


def test_a_bad_option_is_refused_before_anything_is_started_where_the_package_is(server):
    before = len(server.servicer.calls)
    command = ["run", "service/app.py", "--prompt", "x", "--duration", "345"]
    done = run_modal(server, *command, machine=base, **settings())
    assert done.returncode != 0
    assert "duration must be a number from 1 to 300 seconds, got 345" in done.stdout + done.stderr
    assert len(server.servicer.calls) == before


def test_another_process_finds_the_service_by_name_and_ctrl_c_stops_it_on_modal_too(
    server, tmp_path
):
    out = tmp_path / "run"
    command = ["sweep", "--backend", "modal", "--prompt", PROMPT, "--duration", "1,30", "--seed", 7]
    with subprocess.Popen(
        [base() / "bin" / "musicgen-lab", *map(str, command), "--out", out],
        env={**os.environ, **server.environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as sweep:
        while not list(out.glob("clips/*.json")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"ended by itself: {sweep.wait(0.05)} {sweep.stderr.read()}")
        sweep.send_signal(signal.SIGINT)
        said = sweep.stderr.read()
    assert "1 of 2 clips are made and kept" in said, said
    (sent,) = [i for call in server.servicer.calls.values() for i, (_, given) in call.inputs.items()
               if is_clip(given) and request_in(given)["duration"] == 30
               and request_in(given)["seed"] == 7]  # fmt: skip
    assert sent in server.servicer.cancelled


def test_the_notebook_plans_with_costs_runs_resumes_and_says_what_it_cost(server, tmp_path):
    """Modal's synchronous map refuses to run inside a notebook's event loop; this must not.

    It is run as a person runs it who has installed the package without its extras.
    """
    given = {"duration": 1, "temperatures": [0.7, 1.3], "cfg_coefs": [3], "seeds": 1}
    parameters = json.dumps({**given, "run_folder": str(tmp_path / "run")})
    done = subprocess.run(
        [base() / "bin" / "papermill", NOTEBOOK, tmp_path / "done.ipynb", "--parameters_yaml",
         parameters, "--cwd", tmp_path],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells
    said = [json.dumps(cell.get("outputs", [])) for cell in cells]
    plan, resumed = (text for text in said if "already there" in text)
    assert "to make         2" in plan  # the cost too, where the model and the GPU are known
    assert "already there   2" in resumed
    (costs,) = (text for text in said if "cost_usd" in text)
    assert "gpu_s" in costs
    assert said[-1].count("<audio controls") == 2


def test_a_service_of_another_format_is_reported_before_or_while_clips_are_made(server, backend):
    """It was deployed from another version, before this sweep or in the middle of it."""
    other = Result(status=Result.GENERIC_STATUS_SUCCESS, data=serialize({"format": 99}))
    request = backend.resolve(GenerationRequest(prompt=PROMPT, duration=1, seed=3))
    server.servicer.on_deliver = lambda input_id, given: other
    both = "uses format 99, .* `modal deploy service/app.py`"
    with pytest.raises(BackendUnavailable, match=both):
        next(backend.generate([request]))
    with pytest.raises(BackendUnavailable, match=both):
        ModalBackend().resolve(request)


def test_a_missing_deployment_is_reported_with_the_command_to_run(server, backend):
    request = GenerationRequest(prompt="x")
    with pytest.raises(BackendUnavailable, match=r"no app 'nothing' .* `modal deploy service/app"):
        ModalBackend("nothing").resolve(request)
    with pytest.raises(BackendUnavailable, match=r"'staging' .* `modal environment list`"):
        ModalBackend(environment="staging").resolve(request)
    with pytest.raises(ModelUnavailable, match="serves demo@"):
        backend.resolve(request.with_model("facebook/musicgen-large"))


@pytest.mark.parametrize("secret", ["wrong", None])
def test_missing_authentication_is_reported_with_the_command_to_run(server, monkeypatch, secret):
    use(server, monkeypatch)
    if secret:
        monkeypatch.setenv("MODAL_TOKEN_SECRET", secret)
    else:
        monkeypatch.delenv("MODAL_TOKEN_SECRET")
    _Client._set_env_client(None)
    with pytest.raises(BackendUnavailable, match="run `modal token new`"):
        ModalBackend().resolve(GenerationRequest(prompt="x"))
    _Client._set_env_client(None)
