"""The service deployed to the in-memory server with Modal's own command, with the demo model."""

import os
import subprocess

from modal._serialization import deserialize_data_format
from modal.client import _Client

from musicgen_lab.models.locate import locate
from tests.support.environments import PROJECT, caller


def settings():
    return {"MUSICGEN_MODELS": locate("demo").identity, "MUSICGEN_GPU": "cpu"}


def run_modal(server, *arguments, cwd=PROJECT, machine=caller, **environment):
    """Return the finished `modal` command, its output as text, by default with modal alone."""
    return subprocess.run(
        [machine() / "bin" / "modal", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **server.environment, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


def run_documented(command, server, **environment):
    """Return a finished command of the contract, typed in the service's folder with modal alone."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=PROJECT / "service",
        env=typing_environment(server, **environment),
        capture_output=True,
        text=True,
        timeout=280,
    )


def typing_environment(server, **environment):
    """Return the variables of a shell in which `modal` is that of a machine with modal alone."""
    path = f"{caller() / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, **server.environment, "COLUMNS": "200", "PATH": path, **settings(),
            **environment}  # fmt: skip


def deploy(server, **environment):
    done = run_modal(server, "deploy", "service/app.py", **{**settings(), **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def use(server, monkeypatch):
    """Let this process's Modal client talk to the server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    _Client._set_env_client(None)


def is_clip(given):
    """Return whether an input asks for a clip."""
    return given.method_name in ("generate", "stream")


def clips_sent(server):
    """Return the inputs so far that ask for a clip."""
    calls = list(server.servicer.calls.values())
    return [given for call in calls for _, given in call.inputs.values() if is_clip(given)]


def running_functions(server):
    """Return the names of the functions that have a container."""
    servicer = server.servicer
    return {servicer.definition(function_id).function_name for function_id in servicer.containers}


def request_in(given):
    """Return the request that an input which asks for a clip carries."""
    (request,), _ = deserialize_data_format(given.args, given.data_format, None)
    return request
