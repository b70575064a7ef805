"""A fixture that counts what is tried against the package, and how much of it succeeds."""

from __future__ import annotations

import pytest

from tests.support.attacks import ATTACKS


@pytest.fixture
def tried(record_property):
    """Take the name of a kind of attack, how often it was tried, and what succeeded."""

    def count(kind, attempts, succeeded=()):
        record_property(ATTACKS, (kind, attempts, len(succeeded)))
        assert not succeeded

    return count
