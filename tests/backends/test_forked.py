"""In a process that was forked after its backend was used, the error says what to do instead."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.serving import serving
from tests.support.sine_engine import sine_worker

PROGRAM = """
import multiprocessing, sys
import musicgen_lab as lab

def make(backend):
    request = backend.resolve(lab.GenerationRequest(prompt="calm guitar", duration=1, seed=1))
    return len(list(backend.generate([request])))

def make_in_child(connect):
    try:
        print(make(connect()))
    except lab.BackendUnavailable as error:
        print(error)

def start(connect):
    child = multiprocessing.get_context("fork").Process(target=make_in_child, args=(connect,))
    child.start()
    child.join()

address = sys.argv[1]
first = lab.connect(address)
print(make(first), flush=True)
start(lambda: first)
start(lambda: lab.connect(address))
"""


def run(address):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, address],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # without the check it never ends
    ).stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_after_an_engine_was_used_says_to_spawn():
    made, *children = run("local")

    assert made == "1"
    assert len(children) == 2
    assert all("get_context('spawn')" in line for line in children)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_leaves_the_connection_of_a_remote_backend_behind_and_a_new_one_works():
    with serving(sine_worker()) as address:
        made, old, new = run(address)

    assert (made, new) == ("1", "1")
    assert "connect to it in the new process" in old
