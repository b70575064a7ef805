"""A sweep of long clips that is killed in the middle of one goes on from its folder alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import numpy as np

from musicgen_lab import Sweep, connect
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from tests.support.sources import hum

RUN = """
import os, signal, sys
from musicgen_lab import Sweep
from musicgen_lab.backends.local import LocalBackend

model, sound, folder = sys.argv[1:]

class Killed(LocalBackend):
    "A backend whose process is killed in the middle of its second clip."

    def generate(self, requests, on_progress=None):
        made_s = 0.0

        def count(seconds):
            nonlocal made_s
            made_s += seconds
            if made_s > 1.6 * 4.5:
                os.kill(os.getpid(), signal.SIGKILL)

        yield from super().generate(requests, count)

sweep = Sweep(prompt="a", begin_with=sound, begin_s=0.5, duration=5, extend_stride=1, seed=[0, 1])
sweep.run(Killed(model, device="cpu", max_clips=1), folder, progress=False)
"""


def test_sigkill_in_the_middle_of_a_long_clip_loses_that_clip_alone(tmp_path):
    model = shutil.copytree(EMBEDDED_FOLDER, tmp_path / "windows-of-2-s")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "window_s": 2.0}))
    (sound := tmp_path / "hum.wav").write_bytes(hum().content)
    command = [sys.executable, "-c", RUN, model, sound, tmp_path / "run"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    sound.unlink()

    def continued(source):
        return Sweep(
            prompt="a", begin_with=source, begin_s=0.5, duration=5, extend_stride=1, seed=[0, 1]
        )

    backend = connect(f"local:{model}", device="cpu", max_clips=1)
    plan = continued(hum().digest).plan(backend, tmp_path / "run")
    assert (plan.present, plan.to_make, plan.to_make_s) == (1, 1, 4.5)
    resumed = plan.run(progress=False)
    whole = continued(hum()).run(backend, tmp_path / "uninterrupted", progress=False)
    for key in whole.frame["key"]:
        np.testing.assert_array_equal(resumed.clip(key).samples, whole.clip(key).samples)
