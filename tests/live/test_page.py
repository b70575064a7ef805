"""The files of the live page, as a browser gets them."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx2
import pytest
from bs4 import BeautifulSoup

from tests.support.live import live_service
from tests.support.sine_engine import sine_worker


@pytest.fixture(scope="module")
def service():
    with live_service(sine_worker()) as address, httpx2.Client(base_url=address) as client:
        yield client


def files_of(service):
    page = service.get("/").text
    names = re.findall(r'(?:href|src)="(live/[^"]+)"', page)
    scripts = {name for name in names if name.endswith(".js")}
    while True:  # and those that scripts import
        text = "".join(service.get(f"/{name}").text for name in scripts)
        more = {f"live/{name}" for name in re.findall(r'from "\./([a-z]+\.js)"', text)} - scripts
        if not more:
            return [*{*names, *scripts}]
        scripts |= more


def test_the_whole_page_has_less_than_300_kilobytes(service):
    sizes = {name: len(service.get(f"/{name}").content) for name in files_of(service)}
    assert {"live/live.js", "live/sound.js", "live/player.js", "live/player.css"} <= set(sizes)
    assert sum(sizes.values()) + len(service.get("/").content) < 300_000


def test_only_its_own_scripts_run_and_it_is_in_no_frame(service):
    answer = service.get("/")
    page = BeautifulSoup(answer.text, "html.parser")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
    assert all(script["src"].startswith("live/") for script in page("script"))
    assert not page("style") and not page.find(style=True)
    nonce = page.find("script", nonce=True)["nonce"]
    assert f"'nonce-{nonce}'" in policy and f"'nonce-{nonce}'" not in service.get("/").headers[
        "Content-Security-Policy"
    ]  # fmt: skip


def test_files_have_their_types_and_there_are_no_others(service):
    for name in files_of(service):
        answer = service.get(f"/{name}")
        kind = "text/javascript" if name.endswith(".js") else "text/css"
        assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("live.html", "..%2fpage.py", "other.js"):
        assert service.get(f"/live/{name}").status_code == 404


@pytest.mark.parametrize("cell", ["one", "9" * 5000])
def test_what_is_no_number_of_a_clip_is_refused_as_such(service, cell):
    answer = service.delete(f"/live/clips/stream/{cell}")
    assert (answer.status_code, answer.json()["field"]) == (422, "cell")
    assert answer.json()["detail"].startswith("cell must be a whole number, got '")


def test_the_page_is_told_whether_clips_are_kept_in_folders_or_downloaded(service, tmp_path):
    about = service.get("/live/about").json()
    instance = about.pop("instance")
    assert about == {"models": ["sines@1"], "keep": "zip", "match": True}
    with live_service(sine_worker(), tmp_path) as address:
        about = httpx2.get(f"{address}/live/about").json()
    assert about["keep"] == "folder" and about["instance"] != instance


def test_it_is_shown_on_modal_too_whose_small_image_lacks_most_packages():
    program = (
        "import sys, musicgen_lab.live.page; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lacking = {"torch", "pandas", "pyarrow", "librosa", "matplotlib", "jinja2", "statsmodels"}
    assert not (lacking | {"PIL", "markupsafe", "papermill"}) & set(done.stdout.split())
