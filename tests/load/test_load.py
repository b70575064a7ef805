"""The load script in small: no client's response is lost, wrong, or another client's."""

from __future__ import annotations

import json
import subprocess
import sys


def test_sixty_four_clients_get_their_own_answers_while_others_disconnect_or_send_nonsense():
    """In a process of its own: samples are the same bits only with the same number of threads."""
    numbers = ["--clients", "64", "--rounds", "1", "--requests", "32", "--waiting", "16"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.load.load", *numbers, "--bad", "24", "--leaving", "8"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    statuses = json.loads(done.stdout)["statuses"]
    assert (statuses["200"], statuses["422"], statuses["left"]) == (32, 24, 8)
    assert statuses["429"] > 0, "the queue was to be full"
