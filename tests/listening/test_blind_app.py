"""The page for blind listening gives nothing away, and keeps listeners apart, also when mounted."""

from __future__ import annotations

import json
import threading

import pytest
import requests
from starlette.applications import Starlette
from starlette.routing import Mount

from musicgen_lab.listening.blind.app import SESSIONS_MAX, BlindSessions, create_app
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.run_table import RunTable
from tests.support.report_runs import make_run
from tests.support.serving import running

ADA, BO = {"listener": "Ada", "mode": "pairs"}, {"listener": "Bo", "mode": "pairs"}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "secret-run", temperature=[0.7, 1.3], cfg_coef=[1, 3], seed=[0, 1])


@pytest.fixture
def sessions(run):
    return BlindSessions(RunTable.open(run))


@pytest.fixture
def address(sessions):
    """The address of the page, mounted in another app."""
    with running(Starlette(routes=[Mount("/some/where", create_app(sessions))])) as address:
        yield f"{address}/some/where/"


def post(address, path, fields):
    return requests.post(address + path, json=fields)


def test_nothing_that_is_sent_tells_which_clips_are_heard(address, run):
    keys = [record.key for record in RunFolder(run).store.records()]
    hidden = [*keys, *(key[:8] for key in keys), "temperature", "cfg", "seed", "secret-run"]
    shown = post(address, "trial", ADA)
    trial = shown.json()
    assert set(trial) == {"mode", "listener", "answered", "trial", "prompt", "sounds"}
    sounds = [requests.get(address + url) for url in trial["sounds"]]
    for response in (shown, requests.get(address), *sounds):
        text = json.dumps(dict(response.headers)) + response.url
        text += "" if response.content[:4] == b"RIFF" else response.text
        assert not [word for word in hidden if word in text]
        assert response.headers["cache-control"] == "no-store"
    first, second = (
        {name: value for name, value in sound.headers.items() if name != "date"} for sound in sounds
    )
    assert first == second  # the length too
    after = post(address, "answer", ADA | {"trial": trial["trial"], "choice": "a"}).json()
    assert not set(trial["sounds"]) & set(after["sounds"])
    assert requests.get(address + trial["sounds"][0]).status_code == 404


def test_mistaken_and_foreign_requests_are_refused(address, run):
    trial = post(address, "trial", ADA).json()["trial"]
    for fields, status, field in (
        (ADA | {"trial": trial, "choice": "best"}, 422, "choice"),
        (ADA | {"trial": "other", "choice": "a"}, 422, "trial"),
        (BO | {"trial": trial, "choice": "a"}, 422, "trial"),
        ({"trial": trial, "choice": "a"}, 422, "listener"),
        ({"listener": 5, "mode": "best"}, 422, "mode"),
        ([trial], 400, None),
        (ADA | {"trial": trial, "comment": "x" * 9000}, 413, None),
    ):
        refused = post(address, "answer", fields)
        assert (refused.status_code, refused.json()["field"]) == (status, field)
        assert refused.json()["detail"]
    assert requests.post(f"{address}answer", data=json.dumps(ADA)).status_code == 415
    assert RunFolder(run).answers.read() == []


def test_listeners_at_the_same_time_have_questions_of_their_own(address, run, sessions):
    def listen(who):
        trial = post(address, "trial", who).json()
        assert post(address, "trial", who).json() == trial  # loaded again: the same question
        for _ in range(5):
            trial = post(address, "answer", who | {"trial": trial["trial"], "choice": "a"}).json()

    threads = [threading.Thread(target=listen, args=(who,)) for who in (ADA, BO)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listeners = [answer.listener for answer in RunFolder(run).answers.read()]
    assert sorted(listeners) == ["Ada"] * 5 + ["Bo"] * 5
    assert sessions.answered == 10


def test_a_name_in_capitals_has_the_same_question(sessions):
    assert sessions.show("ada", "pairs") == sessions.show("ADA", "pairs")


def test_a_session_that_was_dropped_goes_on_where_it_ended(sessions):
    trial = sessions.show("Ada", "pairs")
    sessions.answer("Ada", "pairs", trial["trial"], {"choice": "b"})
    for number in range(SESSIONS_MAX):
        sessions.show(f"listener {number}", "rate")
    assert sessions.show("Ada", "pairs")["answered"] == 1
