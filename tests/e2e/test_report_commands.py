"""`report --batch` and `compare` as a user types them: a path out, and an exit code."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.e2e.browser import DESKTOP, PHONE, chromium, open_page, show_everything
from tests.support.command import run_command, run_here
from tests.support.report_runs import make_run

STUDIES = """
studies:
  - {name: guitar, prompt: calm guitar, temperature: [0.7, 1.3], duration: 1}
  - {name: elsewhere, prompt: calm guitar, model: nope, duration: 1}
"""


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """A finished `report --batch` on the embedded model, one of whose two studies fails."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "my-studies.yaml").write_text(STUDIES)
    return run_command("report", "--batch", "my-studies.yaml", "--quiet", cwd=folder), folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    for name, cfg_coef in (("a", 2), ("b", 6)):
        make_run(folder / name, cfg_coef=cfg_coef, temperature=[0.7, 1.3], seed=range(3))
    done = run_command(
        "compare", "a", "b", "--features", "onset_rate_hz, rms_dbfs", "--quiet", cwd=folder
    )
    return done, folder


def test_a_batch_ends_with_its_index_and_shows_the_failed_study(batch):
    done, folder = batch
    assert done.returncode == 1
    assert done.stdout == "my-studies/index.html\n"
    assert "study elsewhere failed: no model is called 'nope'" in done.stderr
    page = BeautifulSoup((folder / "my-studies" / "index.html").read_text(), "html.parser")
    assert page.a["href"] == "guitar/report.html"
    assert (folder / "my-studies" / "guitar" / "report.html").is_file()
    assert "no model is called 'nope'" in page.find(class_="failed").get_text()


def test_a_report_is_written_in_the_requested_formats_and_its_path_is_printed(tmp_path):
    make_run(tmp_path / "run")
    done = run_command("report", "run", "--format", "ipynb", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "run/report.ipynb\n"), done.stderr
    assert [path.name for path in (tmp_path / "run").glob("report.*")] == ["report.ipynb"]


def test_a_comparison_is_written_beside_the_second_run(compared):
    done, folder = compared
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b-against-a/report.html\n"
    assert (folder / done.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "give the folder of a run, or --batch with a file of studies"),
        (["report", "--batch", "x.yaml", "--title", "a"], "belong in the file"),
        (["report", "--batch", "x.yaml", "--format", "html"], "--format is for one run"),
        (["report", "--batch", "x.yaml"], "cannot read x.yaml"),
        (
            ["report", "x", "--format", "html, pdf"],
            "unknown format 'pdf'; the formats are html and",
        ),
        (["compare", "here", "there"], "here does not exist"),
    ],
    ids=[
        "nothing to report",
        "a title for many",
        "a format for many",
        "no file",
        "a pdf",
        "no run",
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, message):
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_both_pages_fit_the_window_and_are_accessible(batch, compared):
    from axe_playwright_python.sync_playwright import Axe

    paths = [batch[1] / "my-studies" / "index.html", compared[1] / "b-against-a" / "report.html"]
    screens = [(DESKTOP, "light"), (PHONE, "dark")]
    with chromium() as browser:
        for path, (viewport, scheme) in itertools.product(paths, screens):
            page = open_page(browser, Path(path), viewport, scheme)
            show_everything(page)
            width, window = page.evaluate(
                "[document.documentElement.scrollWidth, window.innerWidth]"
            )
            assert width <= window
            assert [it["id"] for it in Axe().run(page).response["violations"]] == []
            assert page.faults == []
