"""The embedded model's engine, the same in every test and in the load script."""

from musicgen_lab.backends.worker import EngineWorker
from musicgen_lab.engine.engine import Engine
from musicgen_lab.models.locate import EMBEDDED_FOLDER, locate

SLOTS = 8


def open_engine(slots=SLOTS) -> Engine:
    """Return the embedded model's engine."""
    return Engine.open(EMBEDDED_FOLDER, device="cpu", dtype="float32", slots=slots)


def open_demo(*, slots=SLOTS) -> EngineWorker:
    """Return that engine with a thread that steps it."""
    return EngineWorker(open_engine(slots), locate("demo").identity)
