"""How far a sweep is, and the time left."""

import re
import time

import pytest
import tqdm.std

from musicgen_lab.progress import ProgressBar
from musicgen_lab.request import GenerationRequest


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_the_time_left_is_told_by_the_audio_made_not_by_the_opening_of_the_model(clock, capsys):
    requests = [GenerationRequest(prompt="piano", duration=10, seed=seed) for seed in range(10)]

    with ProgressBar(requests, shown=True) as bar:
        clock[0] += 60
        bar.advance(1)
        for _ in range(9):
            clock[0] += 1
            bar.advance(1)
        last = capsys.readouterr().err.split("\r")[-1]

    assert "0 of 10 clips, 01:09 gone" in last
    minutes, seconds = re.search(r"(\d+):(\d+) left", last).groups()
    assert 85 <= 60 * int(minutes) + int(seconds) <= 95
