"""Many studies run from one file, even if one of them fails."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from musicgen_lab import InvalidRequest
from musicgen_lab.studies import read_studies, run_studies, write_index
from tests.support.sines import SineBackend
from tests.support.sources import hum

GOOD = """
studies:
  - name: quiet
    prompt: calm guitar
    temperature: [0.7, 1.3]
    seed: [0, 1]
    duration: 1
    report: {features: [rms_dbfs, spectral_centroid_hz]}
  - name: broken
    prompt: fail always
    duration: 1
  - name: loud
    title: How loud <it> gets
    prompt: drums
    cfg_coef: [1, 5]
    temperature: [0.7, 1.3]
    seed: [0, 1, 2, 3]
    duration: 1
    report: {features: [spectral_centroid_hz]}
"""


BOMB = f"""
studies:
  - report: &a [{"x, " * 500}]
  - report: &b [{"*a, " * 500}]
  - name: a
    prompt: x
    title: [{"*b, " * 500}]
"""


def write(tmp_path, text):
    path = tmp_path / "studies.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Three studies, the second of which fails, and their folder."""
    folder = tmp_path_factory.mktemp("studies")
    studies = read_studies(write(folder, GOOD))
    out = folder / "out"
    outcomes = run_studies(studies, SineBackend(), out, progress=False, say=lambda _: None)
    return outcomes, write_index(outcomes, out, "My studies")


def test_one_that_fails_does_not_stop_the_others_and_is_shown_with_its_error(ran):
    outcomes, index = ran
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, False]
    page = BeautifulSoup(index.read_text(encoding="utf-8"), "html.parser")
    (failed,) = page.find_all(class_="failed")
    assert "no clip could be made: OutOfMemoryError: no room for it" in failed.get_text()
    assert "3 studies, 1 failed" in page.find(class_="lead").get_text()


def test_the_index_ranks_by_significant_effects_and_links_to_each_report(ran):
    _, index = ran
    page = BeautifulSoup(index.read_text(encoding="utf-8"), "html.parser")
    assert [head.get_text() for head in page("h2")] == ["How loud <it> gets", "quiet", "broken"]
    links = [link["href"] for link in page("a")]
    assert links == ["loud/report.html", "quiet/report.html"]
    assert all((index.parent / link).is_file() for link in links)
    assert "Brightness rises with temperature" in page.find("li").get_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies:\n- {name: a, promt: x}", "study 'a' has no field 'promt'; there are name"),
        ("studies:\n- {name: a, prompt: x, report: {feature: [x]}}", "no parameter 'feature'"),
        (
            "studies:\n- {name: a, prompt: x, report: {features: [tempo]}}",
            "unknown feature 'tempo'",
        ),
        ("studies:\n- {name: a, prompt: x, duration: 450}", "study 'a': duration must be"),
        ("studies:\n- {prompt: x}", "study 1 has no name"),
        ("studies:\n- {name: 5, prompt: x}", "study 1 is called 5, which is not text"),
        ("studies:\n- {name: index.html, prompt: x}", "a name becomes a folder beside index.html"),
        ("studies:\n- {name: a, prompt: x, seed: 1:4}", "seed must be a whole number.*'1:4'"),
        ("studies:\n- {name: a, prompt: x, name: b}", "found duplicate key .name."),
        ("studies:\n- {name: ../x, prompt: x}", "a name becomes a folder"),
        ("studies:\n- {name: a, prompt: x}\n- {name: a, prompt: y}", "two studies are called 'a'"),
        ("studies:\n- {name: A, prompt: x}\n- {name: a, prompt: y}", "in more than upper"),
        ("studies:\n- {name: a, prompt: x, title: [y]}", "title of study 'a' must be text"),
        ("studies:\n- {name: a, prompt: {x: y}}", "prompt must be one value or a list of values"),
        ("studies:\n- {name: a, prompt: [[x]]}", "prompt must be one value or a list of values"),
        ("studies: &a [*a]", "stands for more than 1,000,000 values, or is nested more than 6"),
        (BOMB, "stands for more than 1,000,000 values, or is nested more than 6 deep"),
        ("study:\n- {name: a}", "must hold one key, studies"),
        ("studies: [", "is not YAML"),
        pytest.param("[" * 500 + "]" * 500, "is nested too deeply", id="nested"),
        ("? [studies]\n: 1", "must hold one key, studies"),
    ],
)
def test_what_is_wrong_in_the_file_is_refused_before_anything_is_made(tmp_path, text, message):
    with pytest.raises(InvalidRequest, match=message):
        read_studies(write(tmp_path, text))


def test_numbers_are_read_as_they_are_meant(tmp_path):
    text = "studies:\n- {name: a, prompt: x, temperature: [1e-1, .5, 2], seed: 7}"
    (study,) = read_studies(write(tmp_path, text))
    assert [request.temperature for request in study.sweep.requests] == [0.1, 0.5, 2]


def test_the_folder_of_a_run_is_refused_for_studies(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="is a run and has a report of its own"):
        run_studies([], SineBackend(), tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"cannot read .*nowhere\.yaml"):
        read_studies(tmp_path / "nowhere.yaml")


def test_a_study_may_continue_a_sound_and_mix_prompts(tmp_path):
    (tmp_path / "hum.wav").write_bytes(hum().content)
    text = f"""
studies:
  - name: on
    prompt: drums
    prompt_b: piano
    mix: [0.25, 0.75]
    negative_prompt: noise
    begin_with: {tmp_path / "hum.wav"}
    begin_s: 1.5
    include_start: false
    duration: 40
    extend_stride: 12
"""
    (study,) = read_studies(write(tmp_path, text))
    assert study.sweep.swept == ("mix",)
    assert {request.begin_with for request in study.sweep.requests} == {hum()}
    assert not study.sweep.requests[0].include_start
