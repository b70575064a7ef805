"""What the documentation says: its links lead somewhere, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GUIDES = ("listening.md", "features.md", "streaming.md")
PAGES = (DOCS / "tutorial.md", *(DOCS / "how-to" / guide for guide in GUIDES))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_local_links_at_the_top_of_the_repository_lead_to_files(name):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_python_of_the_tutorial_and_the_guides_runs_in_one_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for page in PAGES:
        for code in re.findall(
            r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
        ):
            exec(compile(make_short(code), page.name, "exec"), names)
    assert names["results"].frame["status"].eq("ok").all()
    assert names["clip"].request == names["backend"].resolve(names["request"])
    assert names["frame"]["crest_factor_db"].between(0, 60).all()


def make_short(code):
    """Return the code with clips of 1 s and three seeds, so that it takes seconds."""
    code = code.replace("duration=4", "duration=1")
    return code.replace("range(6)", "range(3)").replace("range(100, 106)", "range(100, 103)")
