"""librosa is imported by one process at a time, whatever is measured first."""

import subprocess
import sys

MEASURE = """
import importlib.abc, sys
import numpy as np
from filelock import Timeout
from musicgen_lab.analysis.features import measure
from musicgen_lab.machine_lock import machine_lock

class Imports(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "librosa":
            try:
                machine_lock("librosa").acquire(timeout=0)
                print(name, "imported by any process")
            except Timeout:
                print(name, "imported by this process alone")

sys.meta_path.insert(0, Imports())
measure(np.random.default_rng(0).normal(0, 0.1, (1, 32_000)), 32_000)
"""


def test_all_of_librosa_that_measuring_needs_is_imported_while_no_other_process_may(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env={"TMPDIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = [line.partition(" ") for line in done.stdout.splitlines()]
    assert "librosa.onset" in [name for name, _, _ in imported]
    assert {how for _, _, how in imported} == {"imported by this process alone"}
