"""Containers of the in-memory Modal server: real processes that run Modal's own container program.

Each runs in an environment with the packages of its image and no others, and sees only what was
uploaded for it: the mounted files lie in a folder of their own, in front of everything else. It is
forked from a process of that environment which has imported the container program already.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextvars import ContextVar
from pathlib import Path

from tests.support.environments import PROJECT, copy_compiled

TASK: ContextVar[str | None] = ContextVar("TASK", default=None)
"""Id of the container that calls the server; None when a client does."""


class ServicerForTask:
    """The server as one container reaches it, on a port of its own: so it is known who calls."""

    def __init__(self, servicer, task_id):
        self.servicer, self.task_id = servicer, task_id

    def __mapping__(self):
        def bind(handler):
            async def call(stream):
                TASK.set(self.task_id)
                await handler.func(stream)

            return handler._replace(func=call)

        return {path: bind(handler) for path, handler in self.servicer.__mapping__().items()}


class Container:
    """One process that serves one function, with one set of class parameters."""

    def __init__(self, task_id, function_id, folder: Path):
        self.task_id, self.function_id, self.folder = task_id, function_id, folder
        folder.mkdir(parents=True)
        self.log = folder / "log"
        self.root = None  # the folder of the mounted files
        self.volumes = {}  # volume id -> MountedVolume
        self.inputs = set()  # ids of those that it works on
        self.served = False  # whether it was ever given an input
        self.retired = False  # whether it is to take no more
        self.killed = False
        self.enqueued_at, self.ended = time.time(), False
        self.cancelled = []  # ids of inputs that it has yet to be told are cancelled
        self.process = None

    def start(self, python, arguments, variables):
        """Start the container program in a Python of its image."""
        path = self.folder / "arguments"
        path.write_bytes(arguments.SerializeToString())
        self.process = python.fork(
            self.root,
            self.log,
            {
                **python.variables,
                "PYTHONPATH": f"{self.root}:{python.client}",
                **variables,
                "MODAL_CONTAINER_ARGUMENTS_PATH": str(path),
                "MODAL_TASK_ID": arguments.task_id,
                "MODAL_ENVIRONMENT": arguments.environment_name,
            },
        )

    def text(self):
        """Return what it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self):
        self.killed = True
        if self.process:
            self.process.kill()
            self.process.wait()

    def open_files(self, folder):
        """Return the files below a folder that the process has open."""
        handles = Path(f"/proc/{self.process.pid}/fd").glob("*")
        paths = [handle.readlink() for handle in handles if handle.is_symlink()]
        return [path for path in paths if path.is_relative_to(folder)]


class Process:
    """A process that is not a child of this one; on Linux."""

    def __init__(self, pid):
        self.pid, self._handle = pid, os.pidfd_open(pid)

    def wait(self):
        """Return when it has ended."""
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        ended.poll()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


class ImagePython:
    """The Python of an image and Modal's client, from which containers are forked."""

    def __init__(self, environment, client):
        # The same number of threads as here: samples are the same bits only then.
        names = ("HOME", "HF_ENDPOINT", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        self.client = client
        self.variables = {
            **inherited,
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "MODAL_IS_REMOTE": "1",
            # Beside the mounted files, where `write_mounts` puts it, instead of in a volume.
            "NUMBA_CACHE_LOCATOR_CLASSES": "InTreeCacheLocator",
        }
        self._process = subprocess.Popen(
            [environment / "bin" / "python", "-P", Path(__file__).with_name("fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**self.variables, "PYTHONPATH": str(client)},
        )
        atexit.register(self._process.communicate)  # it ends with its input
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{environment} cannot import Modal's container program")

    def fork(self, folder, log, variables):
        """Start a container in a folder and return its process."""
        container = {"folder": str(folder), "log": str(log), "environment": variables}
        print(json.dumps(container), file=self._process.stdin, flush=True)
        return Process(int(self._process.stdout.readline()))


_image_python, _starting = functools.cache(ImagePython), threading.Lock()


def image_python(environment, client):
    """Return the one Python of an image, once it is ready."""
    with _starting:
        return _image_python(environment, client)


class MountedVolume:
    """A volume as one container has it: what others commit is seen after a reload, not before."""

    def __init__(self, committed: Path, folder: Path):
        self.committed, self.folder = committed, folder
        committed.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True)
        self.synchronised = {}  # the files of both, as of the last commit or reload
        self.reload()

    def reload(self):
        """See what others committed; as on Modal, what is written here is committed first."""
        self.commit()
        self.synchronised = copy_changes(self.committed, self.folder, self.synchronised)

    def commit(self):
        """Let others see what was written or removed here since the last time."""
        self.synchronised = copy_changes(self.folder, self.committed, self.synchronised)


def copy_changes(source, target, before):
    """Do to the target what was done to the source since its files were `before`; return them."""
    files = {}
    for path in source.rglob("*"):
        if path.is_file():
            files[path.relative_to(source)] = (path.stat().st_mtime_ns, path.stat().st_size)
    for name in (name for name in files if files[name] != before.get(name)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
    for name in before.keys() - files.keys():
        (target / name).unlink(missing_ok=True)
    return files


@functools.cache
def mounts_folder():
    """Return a temporary folder that is deleted when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="mounts-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def write_mounts(mounts, contents):
    """Write the files that were uploaded, at the places they have below /root; return the folder.

    Containers of the same files share it, so that Python compiles them once, and files of this
    project come with what Python and numba have compiled of them here.
    """
    digests = {file.filename: file.sha256_hex for files in mounts for file in files}
    name = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
    root = mounts_folder() / name
    if not root.exists():
        root.mkdir()
        for filename, digest in digests.items():
            path = root / Path(filename).relative_to("/root")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[digest])
            source = PROJECT / path.relative_to(root)
            if (
                source.suffix == ".py"
                and source.exists()
                and source.read_bytes() == contents[digest]
            ):
                copy_compiled(source, path)
    return root
