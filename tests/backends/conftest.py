"""Fixtures of the backends' tests."""

from __future__ import annotations

import pytest

from musicgen_lab.backends.http import HttpBackend


@pytest.fixture
def connect():
    """Return what opens an `HttpBackend`; all of them are closed at the end."""
    opened = []

    def connect(address, **options):
        opened.append(HttpBackend(address, **options))
        return opened[-1]

    yield connect
    for backend in opened:
        backend.close()
