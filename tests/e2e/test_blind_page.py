"""The page for blind listening, in a real browser: by keyboard alone, and without a leak."""

from __future__ import annotations

import re
import signal
import subprocess
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe

from musicgen_lab.listening.blind.app import BlindSessions, create_app
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.run_table import RunTable
from tests.e2e.browser import DESKTOP, PHONE, chromium
from tests.support.command import MUSICGEN_LAB, run_here
from tests.support.report_runs import make_run
from tests.support.serving import running


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
    """The address of the page for Ada."""
    with running(create_app(BlindSessions(RunTable.open(run)))) as address:
        yield f"{address}/#{urlencode({'mode': mode, 'listener': 'Ada'})}"


@pytest.fixture
def printed_address(run):
    """The address that the command prints, for whoever listens."""
    with subprocess.Popen(
        [MUSICGEN_LAB, "listen", run], stdout=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/#\S+", line)[0]
        process.send_signal(signal.SIGINT)
        last = process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert last.startswith("1 answer added to ")


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


def test_the_page_asks_who_listens_and_goes_on_after_it_is_loaded_again(
    browser, printed_address, run
):
    page = browser.new_page(viewport=PHONE)
    page.goto(printed_address)
    page.keyboard.type("Bo <3")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#play:enabled").wait_for()
    answer_with_keys(page, "abx")
    page.get_by_text("Bo <3: 1 answer so far").wait_for()
    page.reload()
    page.get_by_text("Bo <3: 1 answer so far").wait_for()
    page.get_by_role("link", name="Another name or test").click()
    page.locator("#listener").fill("x" * 60)
    assert Axe().run(page).response["violations"] == []
    page.keyboard.press("Enter")
    page.get_by_text(": 0 answers so far").wait_for()
    (given,) = RunFolder(run).answers.read()
    assert (given.listener, given.kind) == ("Bo <3", "abx")
    page.close()


def test_a_mistake_is_one_line(run, tmp_path):
    empty = make_run(tmp_path / "empty", missing=[0])
    for arguments, fault in (
        ([tmp_path / "none"], "does not exist"),
        ([empty], "has no clip to hear; run its sweep first"),
        ([run, "--mode", "best"], "'best' is not one of 'pairs', 'abx', 'rate'"),
        ([run, "--listener", " "], "listener must be a name of 1 to 60 characters"),
    ):
        done = run_here("listen", *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert fault in done.stderr.strip().splitlines()[-1]
