"""`modal serve app.py`: the served code answers, not what is deployed under the same name."""

import contextlib
import re
import shutil
import signal
import subprocess

import httpx2
import pytest

from tests.modal_server.deployed import deploy, typing_environment
from tests.modal_server.server import modal_server
from tests.support.contract import blocks
from tests.support.environments import PROJECT


@pytest.fixture
def server(tmp_path):
    with modal_server(tmp_path / "modal") as server:
        yield server


@pytest.fixture
def checkout(tmp_path):
    """A copy of this project that a test may edit."""
    for folder in ("service", "musicgen_lab"):
        shutil.copytree(PROJECT / folder, tmp_path / "checkout" / folder)
    return tmp_path / "checkout"


def edit(checkout, said):
    """Let the GPU class answer every request with an error of these words."""
    source = PROJECT / "musicgen_lab" / "backends" / "modal_container.py"
    before, line, after = source.read_text().partition("            if self._worker is None:\n")
    raising = f'            raise ModelUnavailable("{said}")\n'
    edited = checkout / source.relative_to(PROJECT)
    edited.write_text(before + raising + line + after)


def post(address):
    return httpx2.post(f"{address}/generate_endpoint", json={"prompt": "x"}, timeout=240).text


def test_the_served_code_answers_alone_and_edited_beside_a_deployed_app(server, checkout):
    _, command = blocks("bash")["Deployment"]
    assert command == "modal serve app.py"
    edit(checkout, "first edit")
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=checkout / "service",
        env=typing_environment(server),
        stdout=subprocess.PIPE,
        text=True,
    ) as serve:
        try:
            lines = iter(serve.stdout.readline, "")
            address = next(found[0] for line in lines
                           if (found := re.search(r"http://127.0.0.1:\d+", line)))  # fmt: skip
            (served,) = (app for app in server.servicer.apps.values() if not app.published)
            assert "first edit" in post(address)
            deploy(server)
            versions = served.versions
            while served.versions == versions:
                # Again where the update is lost, as Modal gives it 5 s to start.
                edit(checkout, "second edit")
                with contextlib.suppress(TimeoutError):
                    server.wait_until(lambda servicer: served.versions > versions, timeout_s=20)
            assert "second edit" in post(address)
        finally:
            serve.send_signal(signal.SIGINT)
            serve.communicate()
