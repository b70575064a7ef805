"""How far a sweep is, and the time left."""

import re
import sys
import threading
import time

import pytest
import tqdm.std

from musicgen_lab.progress import ProgressBar
from musicgen_lab.request import GenerationRequest

REQUESTS = [GenerationRequest(prompt="piano", duration=10, seed=seed) for seed in range(10)]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only advances on request."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    return lambda: capsys.readouterr().err.split("\r")


def test_the_time_left_is_estimated_from_the_audio_made_not_from_opening_the_model(clock, terminal):
    with ProgressBar(REQUESTS, shown=True) as bar:
        clock[0] += 60
        bar.advance(1)
        for _ in range(9):
            clock[0] += 1
            bar.advance(1)
        last = terminal()[-1]

    assert "10 of 100 s of sound, 0 of 10 clips, 01:09 elapsed" in last
    minutes, seconds = re.search(r"(\d+):(\d+) left", last).groups()
    assert 85 <= 60 * int(minutes) + int(seconds) <= 95


def test_a_terminal_shows_how_long_the_model_has_been_opening(clock, terminal, monkeypatch):
    ticks = iter([False, False, True])
    monkeypatch.setattr(threading.Event, "wait", lambda *_: clock.__setitem__(0, clock[0] + 1)
                        or next(ticks))  # fmt: skip
    monkeypatch.setattr(threading.Thread, "start", lambda thread: thread.run())
    with ProgressBar(REQUESTS, shown=True):
        shown = [text.strip() for text in terminal() if text.strip()]
    assert shown[-3:] == [f"opening the model ({s} s)" for s in (0, 1, 2)]


def test_a_log_has_a_line_at_every_tenth_of_the_sound_at_most(clock, capsys):
    with ProgressBar(REQUESTS, shown=True) as bar:
        clock[0] += 5
        for _ in range(400):
            clock[0] += 0.25
            bar.advance(0.25)
        for request in REQUESTS:
            bar.finish(request, failed=request.seed == 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "opening the model"
    assert lines[1] == "10 of 100 s of sound, 0 of 10 clips, 15 s elapsed, 88 s left"
    assert lines[-1] == "100 of 100 s of sound, 10 of 10 clips, 1 failed, 105 s elapsed, 0 s left"
    assert len(lines) <= 12


def test_a_quick_run_is_two_lines_of_a_log(clock, capsys):
    with ProgressBar(REQUESTS, shown=True) as bar:
        for request in REQUESTS:
            clock[0] += 0.01
            bar.finish(request, failed=False)
    assert capsys.readouterr().err.count("\n") == 2


def test_sound_of_unfinished_clips_is_counted():
    with ProgressBar(REQUESTS, shown=False) as bar:
        bar.advance(25)
        bar.finish(REQUESTS[0], failed=False)
    assert bar.unfinished_s == 15
