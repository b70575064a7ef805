"""`lab.connect("http://…")`: a sweep over real HTTP gives what the backend itself gives."""

import asyncio
import json
import logging
import re
import socket
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from musicgen_lab.backends.submitting import Busy
from musicgen_lab.backends.wire import FORMAT
from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.errors import (
    BackendUnavailable,
    InvalidRequest,
    ModelUnavailable,
    MusicGenLabWarning,
)
from musicgen_lab.request import GenerationRequest
from musicgen_lab.sweep import Sweep
from musicgen_lab.web.app import create_app
from musicgen_lab.web.settings import WebSettings
from tests.support.demo_engine import open_demo
from tests.support.serving import running, serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import MODEL, sine_clip
from tests.support.sources import hum


def make(backend, **fields):
    request = backend.resolve(GenerationRequest(**{"prompt": "x", "duration": 1, **fields}))
    (result,) = backend.generate([request])
    return result


def test_a_clip_arrives_sample_for_sample_with_its_provenance(connect):
    with serving(sine_worker()) as address:
        clip = make(connect(address), seed=3, cfg_coef=60.0)
    made = sine_clip(GenerationRequest(prompt="x", duration=1, seed=3, cfg_coef=60.0))
    np.testing.assert_array_equal(clip.samples, made.samples)
    assert clip.request.model == MODEL and clip.provenance == made.provenance


def test_a_sweep_keeps_its_failures_as_rows_and_resumes(connect, tmp_path):
    engine = SineEngine(failures=1)
    sweep = Sweep(prompt=["a", "fail"], temperature=[0.5, 1.0], cfg_coef=[1, 3], duration=1)
    with serving(sine_worker(engine)) as address:
        backend = connect(address)
        first = sweep.run(backend, tmp_path / "run", progress=False).frame
        assert list(first["status"]).count("failed") == 1
        (error,) = first["error"].dropna()
        assert error == "MemoryError: no room for it"
        again = sweep.run(backend, tmp_path / "run", progress=False).frame
    assert set(again["status"]) == {"ok"}
    assert len(engine.made) == 9  # eight, and the failed one once more


def test_a_full_service_is_retried_after_the_time_it_named_and_work_is_never_doubled(connect):
    class FullAtFirst(EngineWorker):
        refusals = 2

        def submit(self, request, on_chunk=None):
            if self.refusals:
                self.refusals -= 1
                raise Busy("full", retry_after_s=1)
            return super().submit(request)

    engine = SineEngine()
    with serving(FullAtFirst(engine, MODEL)) as address:
        assert isinstance(make(connect(address)), Clip)
    assert len(engine.made) == 1


def test_what_the_model_does_not_read_is_known_before_anything_is_sent_to_be_made(connect):
    engine = SineEngine()
    with serving(sine_worker(engine)) as address:
        backend = connect(address)
        with pytest.warns(MusicGenLabWarning, match="does not know 静かな in the prompt"):
            Sweep(prompt=["静かな guitar", "piano"], negative_prompt=" ", duration=1).plan(backend)
        with pytest.raises(InvalidRequest, match="'静かな曲' and '速いドラム' become the same"):
            Sweep(prompt=["静かな曲", "速いドラム"], duration=1).plan(backend)
        with pytest.raises(InvalidRequest, match="'a 150' and 'a 150 静' become the same"):
            prompts = [*(f"a {number}" for number in range(200)), "a 150 静"]
            Sweep(prompt=prompts, duration=1).plan(backend)
    assert engine.made == []


def test_a_service_that_does_not_say_what_its_model_reads_is_used_all_the_same(connect):
    app = FastAPI()
    app.state.backend = sine_worker()

    @app.get("/models")
    def models():
        return {"format": FORMAT, "models": [MODEL]}

    with running(app) as address:
        backend = connect(address)
        assert Sweep(prompt="静かな", duration=1).plan(backend).clips == 1

        @app.post("/prompts")
        def prompts():
            return {"prompts": [{"digest": "a"}]}

        with pytest.raises(BackendUnavailable, match="did not say what its model reads"):
            Sweep(prompt="静かな", duration=1).plan(backend)


def test_a_service_that_cannot_say_now_what_its_model_reads_is_to_be_asked_again(connect):
    class Unreachable(EngineWorker):
        def read_prompts(self, model, prompts):
            raise BackendUnavailable("the network is down")

    with (
        serving(Unreachable(SineEngine(), MODEL)) as address,
        pytest.raises(BackendUnavailable, match="503: the network is down; try again in a moment"),
    ):
        Sweep(prompt="x", duration=1).plan(connect(address))


def test_patience_ends_and_the_request_is_a_failure(connect):
    class Full(EngineWorker):
        def submit(self, request, on_chunk=None):
            raise Busy("9 requests wait", retry_after_s=1)

    with serving(Full(SineEngine(), MODEL)) as address:
        failure = make(connect(address, patience_s=0))
    assert isinstance(failure, Failure) and "9 requests wait" in failure.message


class WithoutJobs:
    """A service that ignores `Prefer` and lets its clients wait."""

    def __init__(self, app):
        self.app, self.state = app, app.state

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"prefer"]
        await self.app(scope, receive, send)


def test_a_clip_that_takes_longer_than_a_call_may_last_is_made_once_and_arrives(connect):
    """Modal ends a call after 150 s; what is waited for is made in vain, again and again."""
    call_is_over = threading.Event()

    class Slow(SineEngine):
        def step(self):
            call_is_over.wait()
            return super().step()

    engine = Slow()
    app = create_app(EngineWorker(engine, MODEL), settings=WebSettings(answer_within_s=0.001))

    @app.middleware("http")
    async def see_the_end_of_a_call(request: Request, call_next):
        answer = await call_next(request)
        if request.url.path.startswith("/generate_endpoint"):
            call_is_over.set()
        return answer

    with running(app) as address:
        assert isinstance(make(connect(address, patience_s=0)), Clip)
    assert len(engine.made) == 1


class Polled(EngineWorker):
    """A worker whose jobs advance by a step in every poll, up to a step that they never leave."""

    def __init__(self, last_step):
        super().__init__(SineEngine(), MODEL)
        self.last_step, self.steps_done, self.jobs = last_step, 0, {}

    def submit(self, request, on_chunk=None):
        future = Future()
        self.jobs[future] = request
        return future

    def progress(self, future):
        self.steps_done = min(self.steps_done + 1, self.last_step)
        if self.steps_done == STEPS_OF_POLLED and not future.done():
            future.set_result(sine_clip(self.jobs[future]))
        return self.steps_done, STEPS_OF_POLLED


STEPS_OF_POLLED = 6


@pytest.mark.parametrize(("last_step", "state"), [(0, "queued"), (3, "running")])
def test_a_job_without_progress_is_given_up_and_cancelled(connect, last_step, state):
    worker = Polled(last_step)
    with serving(worker) as address:
        failure = make(connect(address, stalled_s=0.01))
        assert all(job.cancelled() for job in worker.jobs)
    assert failure.error_type == "Stalled"
    assert f"is {state} and made no progress for 0.01 s; run the sweep again" in failure.message


def test_a_job_that_advances_is_waited_for_however_long_it_takes(connect):
    with serving(Polled(STEPS_OF_POLLED)) as address:
        assert isinstance(make(connect(address, stalled_s=0.01)), Clip)


def test_a_service_without_jobs_may_answer_with_the_clip_itself(connect):
    with running(WithoutJobs(create_app(sine_worker()))) as address:
        backend = connect(address)
        assert isinstance(make(backend, seed=3), Clip)
        failure = make(backend, prompt="fail")
    assert (failure.error_type, failure.message) == ("MemoryError", "no room for it")


def test_progress_is_reported_in_seconds_of_audio_in_the_callers_thread(connect):
    seconds, threads = [], set()

    def on_progress(made_s):
        seconds.append(made_s)
        threads.add(threading.current_thread())

    with serving(open_demo(max_clips=1)) as address:
        backend = connect(address)
        request = backend.resolve(GenerationRequest(prompt="x", duration=4))
        (clip,) = backend.generate([request], on_progress)
    assert isinstance(clip, Clip)
    assert sum(seconds) == pytest.approx(4) and min(seconds) > 0
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("wrap", [lambda app: app, WithoutJobs])
def test_what_is_cancelled_frees_its_slot_at_the_service(connect, wrap):
    worker = open_demo(max_clips=1)
    with running(wrap(create_app(worker))) as address:
        backend = connect(address)
        request = backend.resolve(GenerationRequest(prompt="x", duration=30))
        cancelled_before_it_was_sent = backend.submit(request)
        cancelled_before_it_was_sent.cancel()
        future = backend.submit(request)
        while not worker.describe()["in_flight"]:
            time.sleep(0.02)  # between two looks: nothing depends on its length
        future.cancel()
        while worker.describe()["in_flight"]:
            time.sleep(0.02)
        assert worker.describe()["made"] == 0


@pytest.mark.parametrize(("lost", "kind", "made"), [(2, Clip, 3), (3, Failure, 3)])
def test_what_was_lost_at_the_service_is_sent_at_most_twice_more(connect, lost, kind, made):
    class Unlucky(SineEngine):
        def make(self, request):
            clip = super().make(request)
            if len(self.made) > lost:
                return clip
            return Failure(request, "ContainerLost", "its container was lost")

    for wrap in (lambda app: app, WithoutJobs):
        engine = Unlucky()
        with running(wrap(create_app(sine_worker(engine)))) as address:
            assert isinstance(make(connect(address)), kind)
        assert len(engine.made) == made


def test_a_job_that_the_service_no_longer_knows_is_sent_at_most_twice_more(connect):
    engine = SineEngine()
    with serving(sine_worker(engine), settings=WebSettings(jobs_kept_s=0)) as address:
        failure = make(connect(address))
    assert failure.error_type == "JobLost" and "no longer kept" in failure.message
    assert len(engine.made) == 3


def test_a_job_is_looked_at_again_where_the_answer_was_lost(connect):
    engine, looks = SineEngine(), []
    app = create_app(sine_worker(engine))

    @app.middleware("http")
    async def lose_two(request: Request, call_next):
        if request.method == "GET" and request.url.path.startswith("/generate_endpoint/"):
            looks.append(request.url.path)
            if len(looks) <= 2:
                return Response("bad gateway", 502)
        return await call_next(request)

    with running(app) as address:
        assert isinstance(make(connect(address)), Clip)
    assert len(looks) == 3 and len(engine.made) == 1


def test_a_long_call_is_followed_where_modal_redirects_it(connect):
    """Modal answers 303 after 150 s, to the same address with a query, again and again."""
    inner = create_app(sine_worker())
    outer, polls, answers = FastAPI(), [], {}
    outer.state.backend = inner.state.backend

    @outer.middleware("http")
    async def redirect_twice(request: Request, call_next):
        request.scope["headers"] = [h for h in request.scope["headers"] if h[0] != b"prefer"]
        if request.url.path != "/generate_endpoint":
            return await call_next(request)
        if request.method == "POST":
            answer = await call_next(request)
            answers["fc-1"] = b"".join([part async for part in answer.body_iterator])
        else:
            polls.append(request.query_params["__modal_function_call_id"])
        if len(polls) < 2:
            return RedirectResponse("/generate_endpoint?__modal_function_call_id=fc-1", 303)
        return Response(answers["fc-1"], media_type="application/json")

    outer.mount("/", inner)
    with running(outer) as address:
        assert isinstance(make(connect(address)), Clip)
    assert polls == ["fc-1", "fc-1"]


def test_a_redirect_to_another_host_never_gets_the_key(connect):
    app = create_app(sine_worker())
    other = FastAPI()
    other.state.backend = app.state.backend

    @other.post("/generate_endpoint")
    async def elsewhere():
        return RedirectResponse("http://example.invalid/", 303)

    other.mount("/", app)
    with running(other) as address, pytest.raises(BackendUnavailable, match="another host"):
        make(connect(address, api_key="k"))


def test_a_connection_that_is_lost_is_a_failure_and_not_sent_twice(connect):
    """The service may have made the clip: whether to ask again is the user's choice."""
    received = []

    def serve_once(listening):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65536)
                received.append(head.split(b" ")[0])

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        threading.Thread(target=serve_once, args=[listening], daemon=True).start()
        backend = connect(f"http://127.0.0.1:{listening.getsockname()[1]}")
        request = GenerationRequest(prompt="x", model=MODEL)
        (failure,) = backend.generate([request])
        listening.shutdown(socket.SHUT_RDWR)
    assert isinstance(failure, Failure) and failure.error_type == "ConnectionLost"
    assert received == [b"POST"]


def test_a_missing_service_is_reported_in_one_sentence(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = connect(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(BackendUnavailable, match="no service answers at 127"):
            make(backend)


def test_a_service_that_hangs_up_is_reported_in_one_sentence(connect):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def hang_up():
            connection, _ = listening.accept()
            connection.close()

        threading.Thread(target=hang_up).start()
        backend = connect(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(BackendUnavailable, match="gave no answer that can be read"):
            make(backend)


@pytest.mark.parametrize(
    ("host", "message"),
    [("example.org", "connect(address, api_key="), ("[::1", "is not the address of a service")],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(connect, host, message):
    with pytest.raises(BackendUnavailable, match=re.escape(message)) as error:
        connect(f"https://ada:sesame@{host}")
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["", "ftp://x", "http://", "music", "http://a:99999", "http://[::1", "http://\0"]
)
def test_an_address_that_is_none_is_refused(connect, address):
    with pytest.raises(BackendUnavailable, match="is not the address of a service"):
        connect(address)


def test_a_wrong_key_and_a_right_one(connect):
    with serving(sine_worker(), settings=WebSettings(api_key="sesame")) as address:
        with pytest.raises(BackendUnavailable, match="MUSICGEN_API_KEY"):
            make(connect(address, api_key="other"))
        assert isinstance(make(connect(address, api_key="sesame\n")), Clip)  # as read from a file
        for key in ("", "two\nlines"):
            with pytest.raises(
                InvalidRequest, match="api_key is set, but holds no key: give it one"
            ):
                connect(address, api_key=key)


def test_another_model_and_another_format_are_refused_by_name(connect):
    with serving(sine_worker()) as address, pytest.raises(ModelUnavailable, match=MODEL):
        make(connect(address), model="facebook/musicgen-large")
    app = FastAPI()
    app.state.backend = create_app(sine_worker()).state.backend
    app.get("/models")(lambda: JSONResponse({"format": 99, "models": [MODEL]}))
    with running(app) as address, pytest.raises(BackendUnavailable, match="uses format 99"):
        make(connect(address))


def test_a_top_k_that_the_services_model_ignores_is_refused_before_anything_is_made(connect):
    engine = SineEngine()
    with serving(sine_worker(engine)) as address:
        backend = connect(address)
        with pytest.raises(InvalidRequest, match="top_k 600 allows all of the model's 512 tokens"):
            Sweep(prompt="x", top_k=[250, 600]).plan(backend)
    assert engine.made == []


def test_a_proxys_token_is_sent_in_both_its_parts(connect, monkeypatch):
    class Proxy:
        """What Modal does with requires_proxy_auth: it answers in its own words."""

        def __init__(self, app):
            self.app, self.state = app, app.state

        async def __call__(self, scope, receive, send):
            given = dict(scope.get("headers", ()))
            token = given.get(b"modal-key"), given.get(b"modal-secret")
            if scope["type"] != "http" or token == (b"wk-1", b"ws-1"):
                await self.app(scope, receive, send)
                return
            answer = Response("modal-http: missing credentials for proxy authorization", 401)
            await answer(scope, receive, send)

    with running(Proxy(create_app(sine_worker()))) as address:
        with pytest.raises(BackendUnavailable, match=r"proxy asks for a token.*MUSICGEN_PROXY_KEY"):
            make(connect(address))
        assert isinstance(make(connect(address, proxy_key="wk-1", proxy_secret="ws-1")), Clip)
        monkeypatch.setenv("MUSICGEN_PROXY_KEY", "wk-1\n")
        with pytest.raises(InvalidRequest, match="two parts"):
            connect(address)
        monkeypatch.setenv("MUSICGEN_PROXY_SECRET", "ws-1")
        assert isinstance(make(connect(address)), Clip)


def test_a_key_in_the_environment_may_end_with_a_line_break(connect, monkeypatch):
    monkeypatch.setenv("MUSICGEN_API_KEY", "sesame\n")
    with serving(sine_worker(), settings=WebSettings(api_key="sesame")) as address:
        assert isinstance(make(connect(address)), Clip)
    monkeypatch.setenv("MUSICGEN_API_KEY", "")
    with pytest.raises(InvalidRequest, match="holds no key"):
        connect(address)


def test_a_key_of_the_environment_is_sent_to_the_one_address_that_it_is_meant_for(
    connect, monkeypatch
):
    monkeypatch.setenv("MUSICGEN_API_KEY", "sesame")
    with serving(sine_worker(), settings=WebSettings(api_key="sesame")) as address:
        monkeypatch.setenv("MUSICGEN_KEY_ADDRESS", f"{address}/")
        assert isinstance(make(connect(address)), Clip)
        for meant in (address.replace("http", "https"), "http://127.0.0.1:1", "https://a.example"):
            monkeypatch.setenv("MUSICGEN_KEY_ADDRESS", meant)
            with pytest.raises(BackendUnavailable, match="address that MUSICGEN_KEY_ADDRESS names"):
                make(connect(address))
        monkeypatch.setenv("MUSICGEN_KEY_ADDRESS", "sesame")
        with pytest.raises(InvalidRequest, match="must be the address of the service"):
            connect(address)


def test_a_key_is_not_sent_unencrypted_to_another_machine_unless_that_is_allowed(
    connect, monkeypatch
):
    elsewhere = "http://gpu.example:8000"
    for options in ({"api_key": "sesame"}, {"proxy_key": "wk-1", "proxy_secret": "ws-1"}):
        with pytest.raises(InvalidRequest, match=r"sent unencrypted to gpu\.example:8000: give an"):
            connect(elsewhere, **options)
        connect(elsewhere, **options, plain_http=True)
    monkeypatch.setenv("MUSICGEN_KEY_ADDRESS", elsewhere)
    connect(elsewhere, api_key="sesame")


def sounds_sent(caplog):
    lines = [json.loads(record.message) for record in caplog.records]
    return [line["status"] for line in lines if line["path"] == "/sources"]


def test_clips_that_continue_a_sound_are_those_of_the_backend_and_it_is_sent_once(
    connect, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    sweep = Sweep(prompt="x", begin_with=[hum(), hum(frequency_hz=300)], seed=range(4), duration=3)
    with serving(sine_worker()) as address:
        results = sweep.run(connect(address), tmp_path / "run", progress=False)
    assert sounds_sent(caplog) == [201, 201]
    for key, request in zip(results.frame["key"], sweep.requests, strict=True):
        made = sine_clip(request.with_model(MODEL))
        np.testing.assert_array_equal(results.clip(key).samples, made.samples)


def test_a_sound_is_sent_again_to_a_service_that_no_longer_has_it(connect, caplog):
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    with serving(sine_worker()) as address:
        backend = connect(address)
        backend._sent_sources[hum().digest] = asyncio.Lock()  # it was, before a restart
        assert isinstance(make(backend, begin_with=hum(), duration=3), Clip)
    assert sounds_sent(caplog) == [201]


def test_a_sound_that_others_push_out_is_sent_until_its_clip_is_made(connect, monkeypatch):
    sounds = [hum(frequency_hz=frequency) for frequency in (200, 300, 400)]
    monkeypatch.setattr("musicgen_lab.web.sources.KEPT_MAX_BYTES", sounds[0].nbytes)  # of one
    with serving(sine_worker()) as address:
        backend = connect(address)
        requests = [
            backend.resolve(GenerationRequest(prompt="x", duration=3, seed=seed, begin_with=sound))
            for sound in sounds
            for seed in range(3)
        ]
        assert all(isinstance(result, Clip) for result in backend.generate(requests))


def test_a_sound_whose_content_is_nowhere_is_a_failure_of_its_clip_alone(connect):
    with serving(sine_worker()) as address:
        backend = connect(address)
        requests = [
            backend.resolve(GenerationRequest(prompt="x", duration=3, begin_with=begin_with))
            for begin_with in ("0" * 64, hum())
        ]
        results = {result.request.begin_with: result for result in backend.generate(requests)}
        failed, made = (results[request.begin_with] for request in requests)
        assert isinstance(made, Clip) and failed.error_type == "InvalidRequest"
        assert "is no sound that this service has" in failed.message
        known = backend.resolve(GenerationRequest(prompt="x", duration=3, begin_with=hum().digest))
        assert isinstance(next(backend.generate([known])), Clip)  # it is there already


def test_what_a_service_would_refuse_is_refused_before_anything_is_sent(connect):
    with serving(sine_worker(), settings=WebSettings(source_max_bytes=1000)) as address:
        backend = connect(address)
        with pytest.raises(InvalidRequest, match=r"at most the 30 s that 127.* makes, got 31"):
            make(backend, duration=31)
        with pytest.raises(InvalidRequest, match=r"hum.wav has 128,044 bytes, and .* takes 1,000;"):
            make(backend, begin_with=hum(), duration=3)
    with serving(sine_worker(), settings=WebSettings(duration_max_s=60)) as address:
        assert make(connect(address), duration=60).duration_s == 60
