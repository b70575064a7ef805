"""A real browser on a page from the file system, with everything that goes wrong written down."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from playwright.sync_api import sync_playwright

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextlib.contextmanager
def chromium():
    """Give a browser, or skip the test where none is installed."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no browser is installed: install chromium to test the report's page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*QUIET])
        yield browser
        browser.close()


def open_page(browser, path, viewport, scheme):
    """Open a page; `page.faults` has failed requests, errors, and requests to the network."""
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.faults = []
    page.on(
        "requestfailed",
        # A player that is told to load anew gives up what it was loading: no fault.
        lambda failed: (
            None
            if (failed.resource_type, failed.failure) == ("media", "net::ERR_ABORTED")
            else page.faults.append(f"request: {failed.url} {failed.failure}")
        ),
    )
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
    page.goto(path.as_uri())
    return page


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
