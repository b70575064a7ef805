"""Serve the embedded model on this machine: `python -m tests.service.demo_server [DRAIN_S]`."""

import sys

from musicgen_lab.backends.running import RunningEngine
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.source import locate

SLOTS = 8


def open_demo(*, slots=SLOTS, waiting_max=None) -> RunningEngine:
    """Return the running engine of the embedded model, the same in every process."""
    source = locate("demo")
    engine = Engine.open(source.prepare(), device="cpu", dtype="float32", slots=slots)
    return RunningEngine(engine, source.identity, waiting_max=waiting_max)


if __name__ == "__main__":
    from service.server import serve
    from service.settings import WebSettings

    drain_s = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    serve(open_demo(), port=0, settings=WebSettings(drain_s=drain_s))
