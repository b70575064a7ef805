"""A report, opened in a real browser from the file system, shows and plays every clip."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import sync_playwright

CLIPS, PLACES = 7, 9  # of the shared run: one clip failed and one is not made yet
DURATION_S = 2.0
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no browser is installed: install chromium to test the report's page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*QUIET])
        yield browser
        browser.close()


@pytest.fixture(params=[(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def page(request, browser, report):
    """The page, with everything that went wrong while it was loaded in `page.faults`."""
    viewport, scheme = request.param
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.faults = []
    page.on("requestfailed", lambda failed: page.faults.append(f"request: {failed.url}"))
    page.on("pageerror", lambda error: page.faults.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: page.faults.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("file:", "data:"))
            else page.faults.append(f"network: {asked.url}")
        ),
    )
    page.goto(report.as_uri())
    yield page
    page.close()


def show_everything(page):
    """Load the pictures that are loaded when they are scrolled to, and wait for them."""
    page.evaluate(
        """async () => {
            for (const image of document.images) {
                image.loading = "eager";
                await image.decode();
            }
        }"""
    )


def test_there_are_as_many_players_and_pictures_as_clips_and_nothing_fails(page):
    show_everything(page)
    assert page.locator("audio").count() == CLIPS
    assert page.locator(".listening-grid figure img").count() == CLIPS
    assert page.locator(".listening-grid figure").count() == PLACES
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == CLIPS + 1
    assert all(widths)
    assert page.faults == []


def test_nothing_is_wider_than_the_window(page):
    show_everything(page)
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window


def test_no_word_is_broken_and_no_player_is_too_narrow_to_be_pressed(page):
    show_everything(page)
    widths = page.evaluate("[...document.querySelectorAll('audio')].map(it => it.clientWidth)")
    assert min(widths) > 90
    heads = page.evaluate(
        """[...document.querySelectorAll(".listening-grid th")].map(head => {
            const words = document.createRange();
            words.selectNodeContents(head.firstChild);
            return words.getClientRects().length - 1;
        })"""
    )
    assert max(heads) == 0  # each field's name stands on one line


def test_every_clip_can_be_played_to_its_end(page):
    durations = page.evaluate(
        """() => Promise.all([...document.querySelectorAll("audio")].map(player =>
            new Promise((resolve, reject) => {
                player.addEventListener("canplaythrough", () => resolve(player.duration));
                player.addEventListener("error", () => reject(new Error(player.error.message)));
                player.preload = "auto";
                player.load();
            })))"""
    )
    assert durations == pytest.approx([DURATION_S] * CLIPS, abs=0.1)
    ended_at = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const player = document.querySelector("audio");
            player.addEventListener("ended", () => resolve(player.currentTime));
            player.muted = true;
            player.play().catch(reject);
        })"""
    )
    assert ended_at == pytest.approx(DURATION_S, abs=0.1)
    assert page.faults == []


def test_starting_a_player_pauses_the_one_before_it(page):
    paused = page.evaluate(
        """async () => {
            const [first, second] = document.querySelectorAll("audio");
            first.muted = second.muted = true;
            first.loop = true;
            await first.play();
            const pause = new Promise(resolve => first.addEventListener("pause", resolve));
            await second.play();
            await pause;
            return [first.paused, second.paused];
        }"""
    )
    assert paused == [True, False]
