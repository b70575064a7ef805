"""A GPU that is lost while clips are made, acted by an edited checkout on the in-memory server."""

import shutil

import pytest
from modal.client import _Client

from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.clip import Clip
from musicgen_lab.request import GenerationRequest
from tests.modal_server.deployed import run_modal, settings, use
from tests.modal_server.server import modal_server
from tests.support.environments import PROJECT


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


LOSE_THE_DEVICE = """
import pathlib

_add = Engine.add_request


def _add_or_break(self, request, on_chunk=None):
    mark = pathlib.Path({mark!r})
    if request.prompt == "break" and not mark.exists():
        mark.touch()
        self.device_works = lambda: False
        self.step = lambda: [][0]
    return _add(self, request, on_chunk)


Engine.add_request = _add_or_break
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
