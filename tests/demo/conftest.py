"""The demo's tests run on one thread, as the engine's do."""

from tests.support.cases import make_case, mono, one_thread  # noqa: F401
