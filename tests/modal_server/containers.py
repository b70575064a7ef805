"""Containers of the in-memory Modal server: real processes that run Modal's own container program.

Each sees only what was uploaded for it: the mounted files lie in a folder of its own, in front of
everything else on its path.
"""

import os
import subprocess
import sys
from pathlib import Path

from modal_proto import api_pb2


class Container:
    """One process that serves one function, with one set of class parameters."""

    def __init__(self, folder: Path, arguments: api_pb2.ContainerArguments, environment):
        folder.mkdir(parents=True)
        path = folder / "arguments"
        path.write_bytes(arguments.SerializeToString())
        self.log = folder / "log"
        root = environment.pop("ROOT")
        # The same number of threads as here: samples are the same bits only then.
        inherited = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "OMP_NUM_THREADS")
            if name in os.environ
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modal._container_entrypoint"],
                cwd=root,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    **environment,
                    "PYTHONPATH": root,
                    "MODAL_CONTAINER_ARGUMENTS_PATH": str(path),
                    "MODAL_IS_REMOTE": "1",
                    "MODAL_TASK_ID": arguments.task_id,
                    "MODAL_ENVIRONMENT": arguments.environment_name,
                },
            )

    def kill(self):
        self.process.kill()
        self.process.wait()


def write_mounts(root: Path, mounts, contents) -> Path:
    """Write the files that were uploaded, at the places they have below /root."""
    for files in mounts:
        for file in files:
            path = root / Path(file.filename).relative_to("/root")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[file.sha256_hex])
    return root
