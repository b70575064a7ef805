"""The embedded model's engine, the same in every test and in the load script."""

from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.models.locate import EMBEDDED_FOLDER, locate

SLOTS = 8


def open_engine(max_clips=SLOTS) -> Engine:
    """Return the embedded model's engine."""
    return Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", "float32", max_clips))


def open_demo(*, max_clips=SLOTS) -> EngineWorker:
    """Return that engine with a thread that steps it."""
    return EngineWorker(open_engine(max_clips), locate("demo").identity)
