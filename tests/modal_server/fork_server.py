"""The Python of an image, which becomes a container's whenever it is asked to, by forking.

What Modal's container program imports, and torch where the image has it, is imported once instead
of by every container. Each line of its input is a container: its folder, its log, and its
environment. It says when it is ready, and then the process id of each.
"""

import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys

PROGRAM = "modal._container_entrypoint"


def reap(*_):
    """Take note of containers that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def become(container):
    """Go on in this process as the container program of `python -m`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for path, flags, streams in (
        (os.devnull, os.O_RDONLY, (0,)),
        (container["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, (1, 2)),
    ):
        handle = os.open(path, flags)
        for stream in streams:
            os.dup2(handle, stream)
        os.close(handle)
    os.environ.clear()
    os.environ.update(container["environment"])
    os.chdir(container["folder"])
    sys.path.insert(0, container["folder"])
    runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)


def main():
    for module in (PROGRAM, "torch", "numba"):
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    del sys.modules[PROGRAM]  # it is run anew
    signal.signal(signal.SIGCHLD, reap)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return become(json.loads(line))
        print(pid, flush=True)


main()
