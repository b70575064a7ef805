"""An edited checkout: what is served changes with its code, and a device can be lost on purpose."""

import contextlib
import re
import shutil
import subprocess

import httpx2
import pytest
from modal.client import _Client

from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.clip import Clip
from musicgen_lab.request import GenerationRequest
from musicgen_lab.version import VERSION
from tests.modal_server.deployed import deploy, run_modal, settings, use
from tests.modal_server.server import modal_server
from tests.support.environments import PROJECT, caller


@pytest.fixture
def server(tmp_path):
    with modal_server(tmp_path / "modal") as server:
        yield server
        server.servicer.print_logs()


@pytest.fixture
def checkout(tmp_path):
    """A copy of what is deployed, to be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("musicgen_lab", "service"):
        shutil.copytree(PROJECT / folder, tmp_path / "checkout" / folder, ignore=ignored)
    return tmp_path / "checkout"


@contextlib.contextmanager
def serve(server, checkout):
    """Run `modal serve` until the block ends; yield the address that it shows."""
    with subprocess.Popen(
        [caller() / "bin" / "modal", "serve", "service/app.py"],
        cwd=checkout,
        env={**server.environment, **settings(), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        try:
            said = ""
            while not (address := re.search(r"https?://\S+", said[said.find("web =>") :])) or (
                "web" not in said
            ):
                line = serving.stdout.readline()
                assert line, said
                said += line
            yield address[0]
        finally:
            serving.terminate()


def engine_version(address):
    """Return the version that made a clip, as the answer says."""
    answer = httpx2.post(
        f"{address}/generate_endpoint", json={"prompt": "x", "duration": 1}, timeout=280
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["provenance"]["lab_version"]


def edit_version(checkout, version):
    path = checkout / "musicgen_lab" / "version.py"
    path.write_text(re.sub(r'VERSION = ".*"', f'VERSION = "{version}"', path.read_text()))


@pytest.mark.parametrize("deployed", [False, True])
def test_modal_serve_serves_the_code_being_served_whatever_is_deployed(server, checkout, deployed):
    if deployed:
        deploy(server)
        assert engine_version(server.web_url("musicgen")) == VERSION
    edit_version(checkout, "9.9.9")
    with serve(server, checkout) as address:
        assert engine_version(address) == "9.9.9"


LOSE_THE_DEVICE = """
import pathlib

_add = Engine.add


def _add_or_break(self, request):
    mark = pathlib.Path({mark!r})
    if request.prompt == "break" and not mark.exists():
        mark.touch()
        self.device_works = lambda: False
        self.step = lambda: [][0]
    return _add(self, request)


Engine.add = _add_or_break
"""


def test_a_container_whose_device_is_lost_ends_and_another_one_makes_its_clips(
    server, checkout, tmp_path, monkeypatch
):
    code = LOSE_THE_DEVICE.format(mark=str(tmp_path / "mark"))
    with (checkout / "musicgen_lab" / "engine" / "engine.py").open("a") as file:
        file.write(code)
    done = run_modal(server, "deploy", "service/app.py", cwd=checkout, **settings())
    assert done.returncode == 0, done.stdout + done.stderr
    use(server, monkeypatch)
    backend = ModalBackend()
    requests = [
        backend.resolve(GenerationRequest(prompt=prompt, duration=2, seed=seed))
        for seed, prompt in enumerate(["music", "break", "music"])
    ]
    results = list(backend.generate(requests))
    backend.close()
    _Client._set_env_client(None)
    assert all(isinstance(result, Clip) for result in results), results
    lost = {c.request.seed: c.provenance.details["containers_lost"] for c in results}
    assert lost[1] == 1 and max(lost.values()) == 1
    containers = [
        container
        for container in server.servicer.tasks.values()
        if server.servicer.definition(container.function_id).function_name == "MusicGen.*"
    ]
    assert [container.retired for container in containers] == [True, False]
    assert "IndexError" in containers[0].text()  # the traceback, for the operator
