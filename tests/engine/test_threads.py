"""The engine's threads: no more than the user allows, and none that spin for long."""

import json
import os
import subprocess
import sys

import pytest

COUNT_THREADS = """
import json, sys
import musicgen_lab as lab
import torch
import numba

if len(sys.argv) > 1:
    torch.set_num_threads(int(sys.argv[1]))
before = torch.get_num_threads()
backend = lab.connect("local", device="cpu", max_clips=1)
request = lab.GenerationRequest(prompt="piano", duration=1, seed=1)
(clip,) = backend.generate([backend.resolve(request)])
print(json.dumps([before, torch.get_num_threads(), numba.get_num_threads()]))
"""
COMPILE = """
import json
import torch
from filelock import Timeout
from musicgen_lab.engine.attention import attend
from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.machine_lock import machine_lock
from numba.core import event

compiled = []

class Compilations(event.Listener):
    def on_start(self, event):
        try:
            machine_lock("numba").acquire(timeout=0)
            compiled.append("while any process may")
        except Timeout:
            compiled.append("by this process alone")

    def on_end(self, event):
        pass

with event.install_listener("numba:compile", Compilations()):
    qkv, cache = torch.zeros(1, 3, 2, 8), torch.zeros(2, 1, 2, 4, 8)
    spans = AttentionSpans(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    attend(qkv, cache, spans)
print(json.dumps(sorted(set(compiled))))
"""
READ_SPIN = """
import json, os, pathlib, sys
running = round(float(sys.argv[1]) * os.cpu_count()) + 1
pathlib.Path.read_text = lambda path: f"0.00 0.00 0.00 {running}/300 1"
import musicgen_lab

names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
print(json.dumps({name: os.environ[name] for name in names if name in os.environ}))
"""


def run(program, *arguments, **environment):
    """Run a program in a new process, and return the JSON that it prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["1"], {}), ([], {"OMP_NUM_THREADS": "1"})]
)
def test_a_limit_of_one_thread_is_still_in_force_after_a_clip(arguments, environment):
    assert run(COUNT_THREADS, *arguments, **environment) == [1, 1, 1]


@pytest.mark.parametrize(
    ("taken", "environment", "spin"),
    [
        ("0.5", {}, {"GOMP_SPINCOUNT": "30000"}),
        ("1", {}, {"GOMP_SPINCOUNT": "0"}),
        ("1", {"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ("1", {"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
    ],
)
def test_waiting_threads_spin_only_where_a_core_is_free_unless_the_user_says_otherwise(
    taken, environment, spin
):
    assert run(READ_SPIN, taken, **environment) == spin


def test_the_kernel_is_compiled_by_one_process_at_a_time(tmp_path):
    folders = {"NUMBA_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    quickly = {"NUMBA_OPT": "0"}  # compiled in two thirds of the time
    assert run(COMPILE, **folders, **quickly) == ["by this process alone"]
