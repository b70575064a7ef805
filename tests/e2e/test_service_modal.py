"""The service on Modal: the real client, the real container program, an in-memory server."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
from modal.client import _Client
from modal_proto import api_pb2

from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.clip import Clip
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.source import locate
from musicgen_lab.errors import BackendUnavailable, ModelUnavailable
from musicgen_lab.request import GenerationRequest
from musicgen_lab.sweep import Sweep
from tests.modal_server.deployed import deploy, request_in, run_modal, settings, use
from tests.modal_server.server import modal_server
from tests.service.contract import blocks

Result = api_pb2.GenericResult
PROMPT = "calm acoustic guitar melody"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with modal_server(tmp_path_factory.mktemp("modal")) as server:
        deploy(server)
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
    (own,) = Engine.open(locate("demo").prepare(), device="cpu").generate([request])
    np.testing.assert_array_equal(clip.samples, own.samples)
    assert clip.provenance.details["gpu"] == "CPU"
    assert clip.provenance.details["gpu_s"] > 0
    assert clip.provenance.details["cost_usd"] > 0


def test_a_sweep_with_a_failed_request_and_a_lost_container_is_resumed(server, backend, tmp_path):
    sweep = Sweep(prompt=PROMPT, temperature=[0.7, 1, 1.3], seed=range(3), duration=1)
    accidents = {0: "lose", 1: Result(status=Result.GENERIC_STATUS_FAILURE, exception="no room")}

    def spoil(input_id, given):
        request = request_in(given)
        return accidents.pop(request["seed"], None) if request["temperature"] == 1.3 else None

    server.servicer.on_deliver = spoil
    first = sweep.run(backend, tmp_path / "run", progress=False).frame
    assert accidents == {}
    errors = sorted(first["error"].dropna())
    assert [error.partition(":")[0] for error in errors] == ["ContainerLost", "RemoteError"]
    assert "no room" in errors[1] and "modal app logs" in errors[1]
    assert sorted(first[first["status"] == "failed"]["seed"]) == [0, 1]
    again = sweep.run(backend, tmp_path / "run", progress=False).frame
    assert set(again["status"]) == {"ok"} and len(again) == 9
    assert sorted(again["attempts"]) == [1] * 7 + [2] * 2


def test_modal_run_writes_a_wav_and_prints_its_path(server, tmp_path):
    out = tmp_path / "solo.wav"
    command = ["run", "service/app.py", "--prompt", "jazzy piano solo", "--duration", "2"]
    done = run_modal(server, *command, "--seed", "7", "--out", out, **settings())
    assert done.returncode == 0, done.stdout + done.stderr
    info = soundfile.info(out)
    assert (info.samplerate, info.duration) == (32_000, 2.0)
    assert str(out) in done.stdout and "seed 7" in done.stdout


def test_the_documents_run_command_works_as_it_stands_from_the_services_folder(server, tmp_path):
    (command,) = blocks("bash")["Local Testing"]
    words = command.replace('"jazzy piano solo"', "jazzy+piano+solo").split()
    words = [word.replace("+", " ") for word in words]
    assert words[:3] == ["modal", "run", "app.py"]
    from tests.modal_server.deployed import PROJECT

    out = tmp_path / "clip.wav"
    done = run_modal(server, *words[1:], "--out", out, cwd=PROJECT / "service", **settings())
    assert done.returncode == 0, done.stdout + done.stderr
    assert soundfile.info(out).duration == 10.0


def test_every_option_of_modal_run_arrives(server, tmp_path):
    seen = []
    server.servicer.on_deliver = lambda _, given: seen.append(request_in(given))
    options = {"duration": 1.5, "temperature": 0.5, "top_k": 7, "top_p": 0.3, "cfg_coef": 2.5}
    options |= {"seed": 11, "model": "demo"}
    words = [w for n, v in options.items() for w in (f"--{n.replace('_', '-')}", v)]
    command = ["run", "service/app.py", "--prompt", PROMPT, "--out", tmp_path / "a.wav"]
    done = run_modal(server, *command, *words, **settings())
    server.servicer.on_deliver = None
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen == [{"prompt": PROMPT, **options}]


def test_a_bad_option_is_refused_before_anything_is_started(server):
    before = len(server.servicer.calls)
    command = ["run", "service/app.py", "--prompt", "x", "--duration", "45"]
    done = run_modal(server, *command, **settings())
    assert done.returncode != 0
    assert "duration must be a number from 1 to 30 seconds, got 45" in done.stdout + done.stderr
    assert len(server.servicer.calls) == before


def test_another_process_finds_the_service_by_name(server, tmp_path):
    program = f"""
        import musicgen_lab as lab
        from musicgen_lab.backends.modal import ModalBackend
        sweep = lab.Sweep(prompt={PROMPT!r}, seed=range(2), duration=1)
        results = sweep.run(ModalBackend(), {str(tmp_path / "run")!r}, progress=False)
        print(list(results.frame["status"]))
    """
    import os

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "['ok', 'ok']"


def test_a_notebooks_kernel_finds_the_service_by_name(server, tmp_path, monkeypatch):
    """Modal's synchronous map refuses to run inside a notebook's event loop; this must not."""
    import nbformat
    from nbclient import NotebookClient

    use(server, monkeypatch)
    cell = f"""
import musicgen_lab as lab
from musicgen_lab.backends.modal import ModalBackend
sweep = lab.Sweep(prompt={PROMPT!r}, seed=range(2), duration=1)
results = sweep.run(ModalBackend(), {str(tmp_path / "run")!r})
print(*results.frame["status"])
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    assert "ok ok" in json.dumps(notebook.cells[0].outputs)


def test_what_is_not_deployed_is_told_with_what_to_type(server, backend):
    request = GenerationRequest(prompt="x")
    for missing in (ModalBackend("nothing"), ModalBackend(environment="staging")):
        with pytest.raises(BackendUnavailable, match=r"modal deploy service/app\.py"):
            missing.resolve(request)
    with pytest.raises(ModelUnavailable, match="serves demo@"):
        backend.resolve(request.with_model("facebook/musicgen-large"))


def test_an_unknown_token_is_told_with_what_to_type(server, monkeypatch):
    use(server, monkeypatch)
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "wrong")
    _Client._set_env_client(None)
    with pytest.raises(BackendUnavailable, match="modal token new"):
        ModalBackend().resolve(GenerationRequest(prompt="x"))
    _Client._set_env_client(None)
