"""The set-up files agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OVERRIDES = {
    canonicalize_name(Requirement(line).name): Requirement(line)
    for line in PROJECT["tool"]["uv"]["override-dependencies"]
}


def _direct_requirements():
    groups = [
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        PROJECT["dependency-groups"]["test"],
    ]
    lines = (Requirement(line) for group in groups for line in group)
    return [line for line in lines if line.name != PROJECT["project"]["name"]]


def _locked():
    lock = (ROOT / "requirements.lock").read_text()
    hashed = re.findall(
        r"^([a-z0-9._-]+)==([^\s;]+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", lock, re.M
    )
    assert len(hashed) == lock.count("==")  # a line without checksums would be installed unverified
    return dict(hashed)


@pytest.mark.parametrize("requirement", _direct_requirements(), ids=str)
def test_the_lock_holds_every_requirement_in_a_version_that_fits(requirement):
    name = canonicalize_name(requirement.name)
    assert requirement.specifier.contains(_locked()[name])
    if name in OVERRIDES:
        assert OVERRIDES[name].specifier.contains(_locked()[name])


def test_what_musicgen_never_needs_is_left_out_of_the_lock():
    left_out = {name for name, line in OVERRIDES.items() if line.marker}
    assert left_out
    assert not left_out & _locked().keys()
