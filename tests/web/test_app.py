"""The web app as documented, over real HTTP."""

import base64
import io
import json
import logging
import subprocess
import sys
from dataclasses import replace

import httpx2
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.clip import decode_audio
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import SourceCodes
from musicgen_lab.web.settings import WebSettings
from tests.support.demo_engine import open_demo
from tests.support.serving import serving
from tests.support.sine_engine import SineEngine, sine_worker
from tests.support.sines import MODEL, SAMPLE_RATE, sine_clip

DOCUMENTED = {
    "prompt": "upbeat electronic dance music with heavy bass",
    "duration": 8.0,
    "temperature": 1.0,
    "top_k": 250,
    "top_p": 0.0,
    "cfg_coef": 3.0,
}
LOGGER = "musicgen_lab.service"
AS_JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client():
    with serving(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        yield client


def post(client, body, **options):
    return client.post("/generate_endpoint", json=body, **options)


def test_the_documented_request_gets_the_documented_answer(client):
    answer = post(client, DOCUMENTED)
    assert answer.status_code == 200
    body = answer.json()
    assert body["sample_rate"] == SAMPLE_RATE and body["duration"] == 8.0
    info = soundfile.info(io.BytesIO(base64.b64decode(body["audio_base64"])))
    assert (info.format, info.subtype, info.duration) == ("WAV", "PCM_16", 8.0)


def test_a_prompt_alone_gets_the_documented_defaults(client):
    body = post(client, {"prompt": "x", "seed": 5}).json()
    assert body["duration"] == 8.0
    samples, _ = decode_audio(base64.b64decode(body["audio_base64"]))
    made = sine_clip(GenerationRequest(prompt="x", seed=5)).samples
    assert np.abs(samples - made).max() < 1 / 32000


def test_the_seed_is_drawn_returned_and_makes_the_same_clip_again(client):
    first = post(client, {"prompt": "x", "duration": 1}).json()
    again = post(client, {"prompt": "x", "duration": 1, "seed": first["seed"]}).json()
    assert again["audio_base64"] == first["audio_base64"]
    assert first["model"] == MODEL


def test_the_float_format_has_every_sample_as_it_was_made(client):
    body = {"prompt": "x", "duration": 1, "seed": 2, "cfg_coef": 60.0}  # louder than full scale
    answer = post(client, body, params={"sample_format": "FLOAT"}).json()
    samples, _ = decode_audio(base64.b64decode(answer["audio_base64"]))
    np.testing.assert_array_equal(samples, sine_clip(GenerationRequest(**body)).samples)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("audio/wav", "WAV"),
        ("audio/x-wav", "WAV"),
        ("audio/flac", "FLAC"),
        ("audio/ogg", "OGG"),
        ("audio/mp3", "MP3"),
        ("audio/mpeg;q=0.9, image/*", "MP3"),
    ],
)
def test_accept_chooses_the_sound_itself(client, accept, kind):
    answer = post(client, {"prompt": "x", "duration": 1, "seed": 9}, headers={"Accept": accept})
    assert answer.status_code == 200 and answer.headers["content-type"] in accept
    assert soundfile.info(io.BytesIO(answer.content)).format in (kind, "MPEG", "MP3")
    assert answer.headers["MusicGen-Seed"] == "9"
    assert answer.headers["MusicGen-Model"] == MODEL and answer.headers["Vary"] == "Accept"


@pytest.mark.parametrize("accept", ["image/png", "audio/wav;q=0", "audio/wav;q=x"])
def test_an_accept_header_that_allows_no_available_type_is_answered_406(client, accept):
    assert post(client, {"prompt": "x"}, headers={"Accept": accept}).status_code == 406


def test_health_is_exactly_as_documented_and_asks_no_backend():
    engine = SineEngine()
    with serving(sine_worker(engine)) as address:
        assert httpx2.get(f"{address}/health").json() == {"status": "ok", "model": "sines"}
    assert engine.made == []


@pytest.mark.parametrize(
    ("body", "field", "limit"),
    [
        ({}, "prompt", {"maxLength": 1000}),
        ({"prompt": ""}, "prompt", {"maxLength": 1000}),
        ({"prompt": "x" * 1001}, "prompt", {"maxLength": 1000}),
        ({"prompt": "x", "duration": 45}, "duration", {"minimum": 1, "maximum": 30}),
        ({"prompt": "x", "duration": "8"}, "duration", {"minimum": 1, "maximum": 30}),
        ({"prompt": "x", "top_k": 2.5}, "top_k", {"minimum": 0, "maximum": 2048}),
        ({"prompt": "x", "seed": 10**4000}, "seed", {"minimum": 0, "maximum": 4294967295}),
        ({"prompt": "x", "top_p": True}, "top_p", {"minimum": 0, "maximum": 1}),
        ({"prompt": "x", "cfg_coef": None}, "cfg_coef", {"minimum": 0, "maximum": 100}),
        ({"prompt": "x", "temprature": 1}, "temprature", None),
        ({"prompt": "x", "self": 1}, "self", None),
        ({"prompt": "x", "\ud800": 1}, "\ud800", None),
        ({"prompt": "\ud800"}, "prompt", {"maxLength": 1000}),
        ({"prompt": "x", "model": "/etc"}, "model", {"enum": [MODEL]}),
    ],
)
def test_bad_input_is_answered_422_with_the_field_and_its_limit(client, body, field, limit):
    answer = client.post("/generate_endpoint", content=json.dumps(body), headers=AS_JSON)
    assert answer.status_code == 422
    refusal = answer.json()
    assert refusal["field"] == field
    if limit is None:
        assert refusal["limit"] is None
    else:
        assert limit.items() <= refusal["limit"].items()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"prompt": "x", "duration": NaN}',
     b'{"prompt": "x", "duration": 1' + b"0" * 5000 + b"}",
     b'{"prompt": "x", "temperature": 1e999}', b'{"prompt": "x", "seed": 1' + b"0" * 400 + b"}"],
)  # fmt: skip
def test_a_body_that_is_not_a_request_is_answered_422(client, content):
    assert client.post("/generate_endpoint", content=content, headers=AS_JSON).status_code == 422


def test_an_integer_may_be_written_with_a_decimal_point(client):
    assert post(client, {"prompt": "x", "duration": 1, "top_k": 250.0}).status_code == 200


def test_a_null_seed_or_model_is_as_good_as_none(client):
    answer = post(client, {"prompt": "x", "duration": 1, "seed": None, "model": None})
    assert answer.status_code == 200


def test_a_field_without_effect_is_reported(client):
    body = {"prompt": "x", "duration": 1, "top_k": 50, "top_p": 0.9}
    assert post(client, body).json()["warnings"] == ["top_k does nothing: top_p 0.9 replaces it"]


def test_a_body_over_the_limit_is_answered_413(client):
    answer = client.post("/generate_endpoint", content=b" " * 100_000, headers=AS_JSON)
    assert answer.status_code == 413 and "65,536" in answer.json()["detail"]


def test_a_model_that_fails_is_answered_502_with_its_own_words(client):
    answer = post(client, {"prompt": "fail", "duration": 1})
    assert answer.status_code == 502
    assert answer.json()["error_type"] == "MemoryError"


def test_an_unknown_path_and_method_are_answered_in_the_same_form(client):
    for answer in (
        client.get("/nothing"),
        client.get("/generate_endpoint"),
        client.post("/generate_endpoint/", json={"prompt": "x"}),
    ):
        assert answer.status_code in (404, 405) and "request_id" in answer.json()


def test_a_bad_query_is_answered_422_by_name(client):
    for query, detail in (
        ({"sample_format": "PCM_24"}, "sample_format must be 'PCM_16' or 'FLOAT', got 'PCM_24'"),
        ({"stream": "maybe"}, "stream must be true or false, got 'maybe'"),
        ({"sampleformat": "FLOAT"}, "unknown parameter 'sampleformat' in the address; there is"),
    ):
        answer = post(client, {"prompt": "x"}, params=query)
        assert (answer.status_code, answer.json()["field"]) == (422, *query)
        assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("stream", ["0", "1"])
def test_a_sample_format_that_the_sound_does_not_have_is_reported(client, stream):
    query = {"sample_format": "FLOAT", "stream": stream}
    answer = post(client, {"prompt": "x"}, params=query, headers={"Accept": "audio/ogg"})
    assert answer.status_code == 200
    assert "sample_format does nothing" in answer.headers["MusicGen-Warnings"]


def test_what_only_the_model_can_refuse_is_answered_422_with_the_field(demo):
    codes = SourceCodes(np.zeros((4, 50), np.uint16), "another", 50.0).to_bytes()
    kind = {"Content-Type": "application/octet-stream"}
    sent = httpx2.post(f"{demo}/sources", content=codes, headers=kind).json()
    body = {"prompt": "x", "duration": 2, "begin_with": sent["begin_with"]}
    answer = httpx2.post(f"{demo}/generate_endpoint", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "begin_with")
    assert "has 4 codebooks of the codec another, and this model" in answer.json()["detail"]


def test_with_a_key_only_its_holder_gets_a_clip():
    settings = WebSettings(api_key="sesame-é")
    body = {"prompt": "x", "duration": 1}
    with serving(sine_worker(), settings=settings) as address:
        url = f"{address}/generate_endpoint"
        for wrong in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer sesame"},
                      {"Authorization": "Basic sesame-é".encode()}):  # fmt: skip
            answer = httpx2.post(url, json=body, headers=wrong)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "sesame-" not in answer.text
        right = {"Authorization": "Bearer sesame-é".encode()}
        assert httpx2.post(url, json=body, headers=right).status_code == 200
        assert httpx2.get(f"{address}/health").status_code == 200
        assert httpx2.get(f"{address}/health?deep=1").status_code == 401


class BrokenWorker(EngineWorker):
    def submit(self, request, on_chunk=None):
        raise RuntimeError("secret-token-123 in a folder")


@pytest.fixture
def log_lines(caplog):
    """Return what the service has logged so far, each line read as JSON."""
    caplog.set_level(logging.INFO, "musicgen_lab.service")
    return lambda: [json.loads(r.message) for r in caplog.records if r.name == LOGGER]


def test_an_unexpected_error_is_answered_500_and_its_details_are_only_logged(log_lines):
    with serving(BrokenWorker(SineEngine(), MODEL)) as address:
        answer = httpx2.post(
            f"{address}/generate_endpoint",
            json={"prompt": "body-secret"},
            headers={"Authorization": "Bearer header-secret"},
        )
        httpx2.get(f"{address}/health?token=query-secret")
    assert answer.status_code == 500
    assert "secret" not in answer.text and "Traceback" not in answer.text
    line, with_query = log_lines()
    assert line["request_id"] == answer.json()["request_id"]
    assert (line["error"], line["message"]) == ("RuntimeError", "secret-token-123 in a folder")
    assert "in submit" in line["traceback"]
    assert not any(f"{place}-secret" in json.dumps(line) for place in ("body", "header"))
    assert "query-secret" not in json.dumps(with_query)


def test_a_clip_that_failed_has_its_traceback_in_the_log_under_the_answers_id(log_lines):
    with serving(sine_worker()) as address:
        answer = httpx2.post(f"{address}/generate_endpoint", json={"prompt": "fail"})
    (line,) = log_lines()
    assert answer.status_code == 502 and line["request_id"] == answer.headers["X-Request-Id"]
    assert line["error"] == "MemoryError" and "in make" in line["traceback"]
    assert "Traceback" not in answer.text


def test_every_answer_carries_an_id_that_its_one_log_line_has(log_lines):
    with serving(sine_worker()) as address:
        body = {"prompt": "x", "duration": 0}
        answer = httpx2.post(f"{address}/generate_endpoint", json=body)
    (line,) = log_lines()
    assert line["request_id"] == answer.headers["X-Request-Id"] == answer.json()["request_id"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/generate_endpoint", 422)


@pytest.mark.parametrize(
    ("given", "kept"), [("trace-1.a", True), ("a b", False), ("x" * 129, False)]
)
def test_a_sane_request_id_of_the_client_is_kept(client, given, kept):
    answer = client.get("/health", headers={"X-Request-Id": given})
    assert (answer.headers["X-Request-Id"] == given) == kept


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_that_a_web_page_could_send_without_a_preflight_is_answered_415(client, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post("/generate_endpoint", content=b'{"prompt": "x"}', headers=headers)
    assert answer.status_code == 415 and "application/json" in answer.json()["detail"]


def test_a_duplicate_key_is_refused_by_name(client):
    body = b'{"prompt": "x", "seed": 1, "seed": 2}'
    answer = client.post("/generate_endpoint", content=body, headers=AS_JSON)
    assert answer.status_code == 422 and answer.json()["field"] == "seed"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"prompt": "x", "cfg_coef": null}', "got null"),
     (b'{"prompt": "x", "top_p": true}', "got true"),
     (b'{"prompt": "x", "duration": "8"}', 'got "8"'),
     (b'{"prompt": "x", "duration": NaN}', "NaN is not a number"),
     (b"null", "got null"), (b"[]", "got an array"), (b"true", "got a boolean")],
)  # fmt: skip
def test_messages_use_json_notation(client, content, said):
    answer = client.post("/generate_endpoint", content=content, headers=AS_JSON)
    assert answer.status_code == 422 and said in answer.json()["detail"]


def test_health_answers_head(client):
    answer = client.head("/health")
    assert answer.status_code == 200 and answer.content == b""


def test_a_browser_page_of_another_origin_is_let_in_only_where_it_was_named():
    preflight = {
        "Origin": "https://pages.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, authorization, prefer",
    }
    allowing = WebSettings(allowed_origins=("https://pages.example",))
    for settings, origin in ((WebSettings(), None), (allowing, "https://pages.example")):
        with serving(sine_worker(), settings=settings) as address:
            answer = httpx2.options(f"{address}/generate_endpoint", headers=preflight)
            assert answer.headers.get("Access-Control-Allow-Origin") == origin
            assert (answer.status_code == 200) == (origin is not None)
            health = httpx2.get(f"{address}/health", headers={"Origin": "https://other.example"})
            assert "Access-Control-Allow-Origin" not in health.headers


def test_a_page_of_a_named_origin_can_read_refusals_and_failures_too():
    allowing = WebSettings(allowed_origins=("https://pages.example",))
    origin = {"Origin": "https://pages.example"}
    with serving(sine_worker(), settings=allowing) as address:
        for body, status in (({"prompt": "x", "duration": 99}, 422), ({"prompt": "fail"}, 502)):
            answer = httpx2.post(f"{address}/generate_endpoint", json=body, headers=origin)
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
            assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]


def test_a_server_of_this_machine_answers_to_its_own_names_alone():
    settings = WebSettings(hosts=("127.0.0.1", "localhost", "::1"))
    with serving(sine_worker(), settings=settings) as address:
        for host, status in (("localhost", 200), ("[::1]:8000", 200), ("evil.example", 421)):
            answer = httpx2.get(f"{address}/health", headers={"Host": host})
            assert answer.status_code == status
        assert "evil.example" in answer.json()["detail"]


def test_a_public_service_without_a_key_lets_no_client_start_its_model():
    with serving(sine_worker(), settings=WebSettings(public=True)) as address:
        answer = httpx2.get(f"{address}/health?deep=1")
        assert answer.status_code == 403 and "set a key" in answer.json()["detail"]
    guarded = WebSettings(public=True, api_key="k")
    with serving(sine_worker(), settings=guarded) as address:
        key = {"Authorization": "Bearer k"}
        assert httpx2.get(f"{address}/health?deep=1", headers=key).status_code == 200


def test_readiness_reports_a_lost_device_and_liveness_does_not():
    worker = sine_worker()
    with serving(worker) as address:
        assert httpx2.get(f"{address}/ready").json() == {"status": "ready"}
        worker.broken = True
        for path in ("ready", "health?deep=1"):
            answer = httpx2.get(f"{address}/{path}")
            assert answer.status_code == 503 and "stopped working" in answer.json()["detail"]
            assert answer.headers["Retry-After"]
        assert httpx2.get(f"{address}/health").status_code == 200


def test_metrics_count_requests_clips_and_seconds_of_audio():
    with serving(sine_worker(), settings=WebSettings(api_key="k")) as address:
        assert httpx2.get(f"{address}/metrics").status_code == 401
        key = {"Authorization": "Bearer k"}
        url = f"{address}/generate_endpoint"
        for duration in (1, 2, 45):
            httpx2.post(url, json={"prompt": "x", "duration": duration}, headers=key)
        httpx2.get(f"{address}/made/up")
        text = httpx2.get(f"{address}/metrics", headers=key).text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["musicgen_requests_total", "POST", "/generate_endpoint", "200"] == 2
    assert samples["musicgen_requests_total", "POST", "/generate_endpoint", "422"] == 1
    assert samples["musicgen_requests_total", "GET", "other", "404"] == 1
    assert samples["musicgen_audio_seconds_total",] == 3
    assert samples["musicgen_queue_depth",] == samples["musicgen_clips_in_progress",] == 0
    name = "musicgen_request_duration_seconds_count"
    assert samples[name, "POST", "/generate_endpoint"] == 3


def test_the_web_app_imports_nothing_that_its_small_image_lacks():
    program = (
        "import sys, musicgen_lab.web.app; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lacking = {"torch", "transformers", "pandas", "librosa", "matplotlib", "uvicorn", "httpx2"}
    assert not lacking & set(done.stdout.split())


@pytest.fixture(scope="module")
def demo():
    with serving(open_demo(max_clips=1)) as address:
        yield address


def test_what_a_prompt_says_that_the_model_cannot_read_is_a_warning(demo):
    body = {"prompt": "静かな guitar", "duration": 1, "seed": 1}

    answer = httpx2.post(f"{demo}/generate_endpoint", json=body, timeout=60)
    sound = httpx2.post(
        f"{demo}/generate_endpoint", json=body, timeout=60, headers={"Accept": "audio/flac"}
    )

    assert "does not know 静かな in the prompt" in "; ".join(answer.json()["warnings"])
    assert r"does not know \u9759" in sound.headers["MusicGen-Warnings"]


def test_what_the_model_reads_of_prompts_is_answered_without_making_a_clip(demo):
    answer = httpx2.post(
        f"{demo}/prompts", json={"prompts": ["calm 静かな guitar", "静かな曲", "速いドラム"]}
    )
    assert answer.status_code == 200
    calm, quiet, fast = answer.json()["prompts"]
    assert calm["unread"] == ["静かな"]
    assert quiet["digest"] == fast["digest"] != calm["digest"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompts"),
        ({"prompts": []}, "prompts"),
        ({"prompts": "calm"}, "prompts"),
        ({"prompts": ["calm"] * 101}, "prompts"),
        ({"prompts": ["calm", 3]}, "prompt"),
        ({"prompts": [" "]}, "prompt"),
        ({"prompts": ["calm"], "model": "somebody/else"}, "model"),
        ({"prompts": ["calm"], "promts": []}, "promts"),
    ],
)
def test_a_bad_question_about_prompts_is_answered_422_with_the_field(client, body, field):
    answer = client.post("/prompts", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_sound_beyond_full_scale_is_warned_of_where_it_is_clipped():
    class Loud(SineEngine):
        def make(self, request):
            clip = super().make(request)
            return replace(clip, samples=100 * clip.samples)

    with serving(sine_worker(Loud())) as address:
        for query, clipped in (("", True), ("?sample_format=FLOAT", False)):
            answer = httpx2.post(f"{address}/generate_endpoint{query}", json=DOCUMENTED)
            assert any("clipped at full scale" in w for w in answer.json()["warnings"]) == clipped
