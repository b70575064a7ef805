"""The demo's tests run on one thread, as the engine's do."""

from tests.engine.conftest import one_thread  # noqa: F401
