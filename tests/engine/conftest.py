"""The tiny models that the engine's tests share."""

from tests.support.cases import case, make_case, make_short, mono, one_thread  # noqa: F401
