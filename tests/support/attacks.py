"""Counts of what was tried against the package, as properties of the tests that tried it."""

from __future__ import annotations

from collections import Counter

ATTACKS = "attacks"


def print_attacks(terminalreporter):
    """Print the counts of all tests, in whichever process they ran (`pytest -n 2`)."""
    attempts, successes = Counter(), Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == ATTACKS and report.when == "call":
                    kind, tried, succeeded = value
                    attempts[kind] += tried
                    successes[kind] += succeeded
    if attempts:
        terminalreporter.section("attacks tried")
        for kind, count in sorted(attempts.items()):
            terminalreporter.write_line(f"{kind}: {count} tried, {successes[kind]} succeeded")
