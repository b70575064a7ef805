"""The page for blind listening, in a real browser: by keyboard alone, and without a leak."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe

from musicgen_lab.runs.run_folder import RunFolder
from tests.e2e.browser import DESKTOP, PHONE, chromium
from tests.support.command import MUSICGEN_LAB, run_command
from tests.support.report_runs import make_run


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["pairs", "abx", "rate"])
def mode(request):
    return request.param


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "secret-run", temperature=[0.7, 1.3], cfg_coef=[1, 3], seed=[0, 1])


@pytest.fixture
def address(run, mode):
    """The address of the page that the command serves."""
    command = [MUSICGEN_LAB, "listen", run, "--listener", "Ada", "--mode", mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        process.send_signal(signal.SIGINT)
        last = process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert "of Ada added to" in last


@pytest.fixture(params=[(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def page(request, browser, address):
    viewport, scheme = request.param
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda failed: page.faults.append(failed.url))
    page.goto(address)
    page.locator("#play:enabled").wait_for()
    yield page
    assert page.faults == []
    page.close()


def answer_with_keys(page, mode):
    """Answer one question with the keyboard alone, having heard all that there is."""
    if mode == "rate":
        page.keyboard.press("Space")
        page.locator("#quality").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        page.locator("#rate:enabled").wait_for()
        page.keyboard.press("Enter")
        return
    for key in ("a", "b", "x")[: 3 if mode == "abx" else 2]:
        page.keyboard.press(key)
        page.locator(f"#sounds button[data-key={key}][aria-pressed=true]").wait_for()
    page.locator("#choices button:enabled").first.wait_for()
    page.keyboard.press("2")


def test_questions_are_answered_with_the_keyboard_and_saved_one_by_one(page, mode, run):
    for number in (1, 2):
        answer_with_keys(page, mode)
        page.get_by_text(f"{number} answer").wait_for()
        page.locator("#play:enabled").wait_for()
        assert len(RunFolder(run).answers.read()) == number
    answers = RunFolder(run).answers.read()
    if mode == "rate":
        assert [(answer.quality, answer.fit) for answer in answers] == [(51, 0)] * 2
    else:
        assert [answer.choice for answer in answers] == ["b"] * 2
    page.get_by_text("Comment", exact=True).click()
    page.get_by_role("textbox").fill("a s 1 <b>")
    page.get_by_role("button", name="Skip").click()
    page.get_by_text("3 answer").wait_for()
    assert RunFolder(run).answers.read()[-1].comment == "a s 1 <b>"


def test_the_page_is_accessible_and_fits_the_window(page):
    found = Axe().run(page)
    assert found.response["violations"] == []
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window


@pytest.mark.parametrize("mode", ["pairs"], indirect=True)
def test_nothing_that_is_sent_tells_which_clips_are_heard(address, run):
    keys = [record.key for record in RunFolder(run).store.records()]
    hidden = [*keys, *(key[:8] for key in keys), "temperature", "cfg", "seed", "secret-run"]
    shown = requests.get(f"{address}/trial")
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
    reply = {"trial": trial["trial"], "choice": "a"}
    after = requests.post(f"{address}/answer", json=reply).json()
    assert not set(trial["sounds"]) & set(after["sounds"])
    assert requests.get(address + trial["sounds"][0]).status_code == 404


@pytest.mark.parametrize("mode", ["pairs"], indirect=True)
def test_mistaken_and_foreign_requests_are_refused(address, run):
    trial = requests.get(f"{address}/trial").json()["trial"]
    url = f"{address}/answer"
    refused = requests.post(url, json={"trial": trial, "choice": "best"})
    assert (refused.status_code, refused.json()["field"]) == (422, "choice")
    assert requests.post(url, json={"trial": "other", "choice": "a"}).status_code == 422
    assert requests.post(url, json=[trial]).status_code == 400
    assert requests.post(url, data=json.dumps({"trial": trial})).status_code == 415
    assert requests.post(url, json={"trial": trial, "comment": "x" * 9000}).status_code == 413
    assert requests.get(address, headers={"Host": "evil.example"}).status_code == 400
    assert RunFolder(run).answers.read() == []


def test_a_mistake_is_one_line(run, tmp_path):
    for arguments, fault in (
        ([tmp_path / "none"], "does not exist"),
        ([run, "--mode", "best"], "'best' is not one of 'pairs', 'abx', 'rate'"),
        ([run, "--listener", " "], "listener must be a name of 1 to 60 characters"),
    ):
        done = run_command("listen", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert fault in done.stderr.strip().splitlines()[-1]
