"""Fixtures that several packages of tests share."""

from __future__ import annotations

import pytest

from musicgen_lab import make_report
from tests.support.report_runs import make_run


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The page of a 3 x 3 run with a failed, a silent, a missing and a too loud clip.

    Its sounds lie beside it.
    """
    folder = make_run(
        tmp_path_factory.mktemp("reports") / "a run {with} braces & spaces",
        prompt="calm <b>guitar</b> & $5 {drums}",
        temperature=[0.7, 1.0, 1.3],
        cfg_coef=[1, 3, 5],
        loud=[0],
        missing=[2],
        failed=[4],
        silent=[6],
        duration=2,
    )
    return make_report(folder, self_contained=False, progress=False)
