"""`results.listen()` in a running JupyterLab, in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from tests.e2e.browser import chromium
from tests.support.report_runs import make_run

SLOW_MS = 120_000
LISTEN = 'import musicgen_lab as lab\n\nlab.Results.open("run").listen()'
STRIPES = "() => getComputedStyle(document.querySelector('.listening-grid tr')).backgroundColor"
WAVES = (
    "() => [...document.querySelectorAll('clip-player')].map(it => it.wave?.options.waveColor)[0]"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run and a notebook that listens to it."""
    folder = tmp_path_factory.mktemp("notebooks")
    make_run(folder / "run", temperature=[0.7, 1.3], cfg_coef=[1, 3])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LISTEN)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "listen.ipynb")
    return folder


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("jupyter")  # nothing of whoever runs the tests
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR",
             "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0",
               "--IdentityProvider.token=t", "--allow-root", "--LabApp.news_url="]  # fmt: skip
    environment = os.environ | {name: str(own / name) for name in names}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as lab:
        address = next(
            found[0] for line in lab.stderr if (found := re.search(r"http://127[\d.:]+", line))
        )
        yield address
        lab.terminate()
        lab.communicate()


@pytest.fixture
def open_notebook(address):
    with chromium() as browser:

        def open_it():
            page = browser.new_page()
            page.set_default_timeout(SLOW_MS)
            page.goto(f"{address}/lab/tree/listen.ipynb?token=t&reset")
            page.get_by_text("| Idle").wait_for()
            return page

        yield open_it


def test_players_work_in_a_notebook_that_runs_is_saved_or_is_not_trusted(open_notebook, folder):
    page = open_notebook()
    page.locator(".jp-Notebook .jp-InputArea-editor").first.click()
    page.keyboard.press("Shift+Enter")
    play = page.locator("clip-player .play")
    play.first.wait_for()
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.evaluate("document.querySelectorAll('audio').forEach(it => { it.muted = true; })")
    play.first.focus()
    for key in ("a", "ArrowDown", "a", "x"):  # JupyterLab has these keys too: a new cell, a cut one
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.3")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert page.evaluate(STRIPES) == "rgba(0, 0, 0, 0)"
    light = page.evaluate(WAVES)
    page.get_by_role("menuitem", name="Settings").click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_text("JupyterLab Dark", exact=True).click()
    page.wait_for_function(f"light => ({WAVES})() !== light", arg=light)
    with page.expect_response(lambda answer: answer.request.method == "PUT"):
        page.keyboard.press("Control+s")
    page.close()

    saved = open_notebook()
    assert saved.locator("clip-player .play").count() == 4
    saved.close()

    notebook = json.loads((folder / "listen.ipynb").read_text())
    notebook["cells"][0]["source"] = "# of somebody else"
    (folder / "listen.ipynb").write_text(json.dumps(notebook))
    untrusted = open_notebook()
    assert untrusted.locator(".jp-OutputArea audio[controls]").count() == 4
    assert untrusted.locator("clip-player .play").count() == 0
