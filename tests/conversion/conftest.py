"""The tiny models that the tests of conversion share."""

from tests.support.cases import make_case, mono, one_thread  # noqa: F401
