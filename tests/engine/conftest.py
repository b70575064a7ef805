"""The tiny models that the engine's tests share, and triton's interpreter."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.engine import interpreted
from tests.support.cases import case, make_case, make_short, mono, one_thread  # noqa: F401


@pytest.fixture(scope="session")
def interpret():
    """Functions of `tests.engine.interpreted`, run with their arguments in triton's interpreter."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=interpreted.begin) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()
