"""`compare`: where its report is written."""

from __future__ import annotations

import pytest

from tests.support.command import run_here


@pytest.mark.parametrize(
    ("folder", "run_b", "beside"), [(".", "runs/b", "runs"), ("runs/b", ".", "{}/runs")]
)
def test_a_comparison_is_written_beside_the_second_run_wherever_one_is(
    tmp_path, monkeypatch, folder, run_b, beside
):
    (tmp_path / "runs" / "b").mkdir(parents=True)
    monkeypatch.setattr("musicgen_lab.report.compare.make_comparison", lambda a, b, out, **_: out)

    done = run_here("compare", tmp_path / "runs" / "a", run_b, cwd=tmp_path / folder)

    assert done.stdout == f"{beside.format(tmp_path)}/b-against-a\n", done.stderr
