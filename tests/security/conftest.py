"""Counts what was tried against the package, and how much of it succeeded."""

from __future__ import annotations

from collections import defaultdict

import pytest

TRIED: dict[str, list[int]] = defaultdict(lambda: [0, 0])


@pytest.fixture
def tried():
    """Take the name of a kind of attack, how often it was tried, and what succeeded."""

    def count(kind, attempts, succeeded=()):
        TRIED[kind][0] += attempts
        TRIED[kind][1] += len(succeeded)
        assert not succeeded

    return count


def pytest_terminal_summary(terminalreporter):
    if TRIED:
        terminalreporter.section("attacks tried")
        for kind, (attempts, succeeded) in sorted(TRIED.items()):
            terminalreporter.write_line(f"{kind}: {attempts} tried, {succeeded} succeeded")
