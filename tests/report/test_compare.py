"""Two runs are compared in pairs that differ in the run alone."""

from __future__ import annotations

import re

import pytest
from bs4 import BeautifulSoup

from musicgen_lab import InvalidRequest
from musicgen_lab.report.compare import findings, make_comparison
from musicgen_lab.report.sentences import difference_sentences
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.comparison import Comparison
from tests.support.report_runs import make_run

FIELDS = {"temperature": [0.7, 1.3], "seed": range(4), "duration": 1}
FEATURES = ["spectral_centroid_hz", "onset_rate_hz"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in cfg_coef: the tempo follows it, and with it the spectrum."""
    folder = tmp_path_factory.mktemp("pair")
    a = make_run(folder / "a", cfg_coef=2, failed=[0], **FIELDS)
    b = make_run(folder / "b", cfg_coef=6, **FIELDS)
    return a, b


def test_clips_are_paired_by_equal_request_fields(runs):
    comparison = Comparison.of(*map(RunTable.open, runs))
    assert comparison.apart == ("cfg_coef",)
    assert comparison.names() == ("cfg_coef 2", "cfg_coef 6")
    assert len(comparison.pairs) == 7  # one clip failed, and so its pair is none
    assert comparison.pairs[0].label == "temperature 0.7, seed 1"


def test_a_difference_is_stated_with_its_interval_and_none_is_made_up(runs):
    comparison = Comparison.of(*map(RunTable.open, runs))
    table = comparison.differences(["spectral_centroid_hz"])
    (said,) = difference_sentences(comparison, table)
    told = re.fullmatch(
        r"Brightness differs: it is (?P<change>[\d,]+) Hz higher with cfg_coef 6 than with "
        r"cfg_coef 2 \(95% interval [\d,]+ to [\d,]+, 4 seeds\)\.",
        said,
    )
    change = float(table["change"][0])
    assert float(told["change"].replace(",", "")) == pytest.approx(change, abs=0.5)


def test_a_feature_that_was_not_tested_is_not_called_inconclusive(runs):
    comparison = Comparison.of(*map(RunTable.open, runs))
    row = BeautifulSoup(findings(comparison, ["is_silent"]).data, "html.parser").tbody.tr
    label, change, *_, judged, note = (cell.get_text() for cell in row("td"))
    assert (label, change) == ("The share of silent clips", "–")
    assert (judged, note) == ("not tested", "the feature is the same in all clips")


def test_a_run_with_too_few_clips_is_named_by_its_number(runs, tmp_path):
    quiet = make_run(tmp_path / "quiet", cfg_coef=9, silent=range(1, 8), **FIELDS)
    comparison = Comparison.of(*map(RunTable.open, (runs[1], quiet)))
    (row,) = comparison.differences(["spectral_centroid_hz"]).itertuples()
    assert row.note == "too few different clips with a value have run 2 to judge chance there"


def test_a_run_compared_with_itself_shows_nothing(runs):
    table = RunTable.open(runs[1])
    comparison = Comparison.of(table, table)
    assert comparison.names() == ("first run", "second run")
    table = comparison.differences(FEATURES)
    assert not table["significant"].any()
    assert difference_sentences(comparison, table) == [
        "The features are the same in both runs, clip by clip."
    ]


def test_diversity_and_answers_of_yes_or_no_are_compared_too_and_texts_are_not(runs):
    comparison = Comparison.of(*map(RunTable.open, runs))
    names = ["diversity_db", "is_silent", "key_estimate"]
    table = comparison.differences(names).set_index("feature")
    assert table.index.to_list() == names[:2]
    assert table["clips"].to_list() == [14, 14]
    assert difference_sentences(comparison, comparison.differences(["key_estimate"])) == [
        "None of the chosen features has a mean that could be compared."
    ]


def test_runs_without_a_common_request_are_refused(runs, tmp_path):
    other = make_run(tmp_path / "other", temperature=[0.9], seed=[7], duration=2)
    with pytest.raises(InvalidRequest, match=r"no clip of .* has a counterpart"):
        Comparison.of(RunTable.open(runs[0]), RunTable.open(other))


def test_it_never_replaces_a_runs_own_report(runs):
    with pytest.raises(InvalidRequest, match="is a run and has a report of its own"):
        make_comparison(*runs, runs[0], features=FEATURES, progress=False)
    assert not (runs[0] / "report.html").exists()


def test_the_page_is_in_its_own_folder_with_its_audio(runs, tmp_path):
    path = make_comparison(
        *runs, tmp_path / "out", features=FEATURES, self_contained=False, progress=False
    )
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert page.h1.get_text() == "cfg_coef 6 against cfg_coef 2"
    assert "7 pairs of clips whose requests differ in cfg_coef alone" in page.get_text()
    assert "higher with cfg_coef 6 than with cfg_coef 2" in page.find(class_="findings").get_text()
    assert len(page("audio")) == 14
    for tag in page(["audio", "img"]):
        assert (path.parent / tag["src"]).is_file()
    assert str(tmp_path.parent) not in path.read_text(encoding="utf-8")
