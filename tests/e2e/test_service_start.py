"""What a deployment does that cannot serve: one clear line, no crash loop, no GPU for nothing."""

import shutil
import subprocess

import httpx2
import pytest
from modal.client import _Client
from modal_proto.api_pb2 import GenericResult as Result

from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.clip import Failure
from musicgen_lab.request import GenerationRequest
from tests.modal_server.deployed import deploy, run_modal, running_functions, use
from tests.modal_server.server import modal_server
from tests.support.environments import PROJECT, caller

UNFETCHED = f"facebook/musicgen-small@{40 * 'a'}"


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # no Hub can be reached
    with modal_server(tmp_path / "modal") as server:
        yield server
        server.servicer.print_logs()


def test_an_unavailable_model_is_reported_in_every_answer_by_a_container_that_stays_up(
    server, monkeypatch
):
    deploy(server, MUSICGEN_MODELS=UNFETCHED)
    use(server, monkeypatch)
    backend = ModalBackend()
    for seed in range(2):
        request = backend.resolve(GenerationRequest(prompt="x", duration=1, seed=seed))
        (failure,) = backend.generate([request])
        assert isinstance(failure, Failure) and failure.error_type == "ModelUnavailable"
        assert "the Hugging Face Hub could not be reached" in failure.message
    backend.close()
    _Client._set_env_client(None)
    names = [
        server.servicer.definition(container.function_id).function_name
        for container in server.servicer.tasks.values()
    ]
    assert names.count("MusicGen.*") == 1


def has_answered_prepare(servicer):
    """Return whether a call of `prepare` has ended."""
    return any(
        call.outputs and servicer.definition(call.function_id).function_name == "prepare"
        for call in servicer.calls.values()
    )


def test_the_web_app_has_missing_weights_prepared_without_a_gpu_and_says_why_they_are_not(server):
    deploy(server, MUSICGEN_MODELS=UNFETCHED)
    address = server.web_url("musicgen")

    def ask(**headers):
        body, url = {"prompt": "x", "duration": 1}, f"{address}/generate_endpoint"
        return httpx2.post(url, json=body, headers=headers, timeout=280)

    for answer in (ask(), ask(Prefer="respond-async")):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert "the model is being loaded" in answer.json()["detail"]
    server.wait_until(has_answered_prepare)
    answer = ask()
    assert answer.status_code == 503
    assert "could not be prepared" in answer.json()["detail"]
    assert "MusicGen.*" not in running_functions(server)


def test_an_invalid_setting_is_refused_in_one_line_when_deploying(server):
    done = run_modal(server, "deploy", "service/app.py", MUSICGEN_API_KEY="sesame")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "MUSICGEN_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1


def test_app_py_alone_says_what_it_needs_in_one_line(server, tmp_path):
    shutil.copy(PROJECT / "service" / "app.py", tmp_path)
    done = run_modal(server, "deploy", "app.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: app.py needs a checkout of MusicGen Lab")
    assert done.stderr.count("\n") == 1


def test_a_service_that_has_a_key_or_cannot_be_asked_is_not_made_public_unless_that_is_meant(
    server,
):
    secret = [caller() / "bin" / "modal", "secret", "create", "musicgen-key", "MUSICGEN_API_KEY=k"]
    subprocess.run(secret, env={**server.environment}, check=True, capture_output=True)
    closed = deploy(server, MUSICGEN_SECRET="musicgen-key")
    assert "needs the key in the Modal secret 'musicgen-key'" in closed.stdout
    failure = Result(status=Result.GENERIC_STATUS_FAILURE, exception="the container\nfailed")
    server.servicer.on_deliver = lambda input_id, given: failure
    refused = run_modal(server, "deploy", "service/app.py", MUSICGEN_GPU="cpu")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    assert "cannot be asked whether it has a key (the container failed)" in refused.stderr
    server.servicer.on_deliver = None
    answer = httpx2.post(
        f"{server.web_url('musicgen')}/generate_endpoint", json={"prompt": "x"}, timeout=280
    )
    assert answer.status_code == 401
    refused = run_modal(server, "deploy", "service/app.py", MUSICGEN_GPU="cpu")
    assert refused.returncode == 1 and "would become public" in refused.stderr
    opened = deploy(server, MUSICGEN_PUBLIC="1")
    assert "the web address is PUBLIC" in opened.stdout


def test_a_secret_that_does_not_exist_is_refused(server):
    done = run_modal(server, "deploy", "service/app.py", MUSICGEN_SECRET="nowhere")
    assert done.returncode != 0 and "nowhere" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "other",
    [
        {
            "MUSICGEN_APP": "mine", "MUSICGEN_GPU": "H100!,L4", "MUSICGEN_CORES": "4",
            "MUSICGEN_MEMORY_GIB": "32", "MUSICGEN_CLIPS_AT_ONCE": "3",
            "MUSICGEN_CONTAINERS_MAX": "9", "MUSICGEN_SCALEDOWN_WINDOW": "30",
            "MUSICGEN_TIMEOUT": "900", "MUSICGEN_MEMORY_SNAPSHOT": "0",
            "MUSICGEN_PROXY_AUTH": "1", "MUSICGEN_PUBLIC": "1", "MUSICGEN_WAITING": "7",
            "MUSICGEN_ALLOWED_ORIGINS": "https://example.org,http://localhost:3000",
        },
        {"MUSICGEN_GPU": "cpu", "MUSICGEN_MEMORY_SNAPSHOT": "true"},
    ],
)  # fmt: skip
def test_every_setting_can_be_deployed_at_another_value_than_its_default(server, other):
    done = run_modal(server, "deploy", "service/app.py", **other)
    assert done.returncode == 0, done.stdout + done.stderr
    (app,) = (app for app in server.servicer.apps.values() if app.published)
    function = server.servicer.definition(app.functions["MusicGen.*"])
    assert function.checkpointing_enabled == (other["MUSICGEN_MEMORY_SNAPSHOT"] != "0")
    environment = {}
    for secret in function.secret_ids:
        environment |= server.servicer.secrets[secret]
    assert {name: environment[name] for name in other if other[name] != "true"} == {
        name: value for name, value in other.items() if value != "true"
    }
