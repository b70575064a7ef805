"""What a report says of blind tests follows from the answers."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from musicgen_lab.formatting import FieldLabels
from musicgen_lab.report.preferences import (
    abx_sentence,
    feature_sentence,
    preference_sentence,
    preferences,
    rating_sentence,
)
from musicgen_lab.runs.answers import PairAnswer, RatingAnswer
from musicgen_lab.runs.run_table import RunTable
from tests.support.listeners import answer, compare
from tests.support.report_runs import make_run

LABELS = FieldLabels.of(["calm guitar"])
BASE = {
    "parameter": "temperature", "feature": "preference", "shape": "trend", "from_level": 0.7,
    "to_level": 1.3, "peak": None, "answers": 240, "listeners": 3, "seeds": 4, "replicate": "seed",
}  # fmt: skip
PREFERENCES = [
    (
        {"change": -1.0986, "low": -2.1972, "high": -0.4055},
        "Listeners prefer a lower temperature: a clip at 0.7 is preferred to one at 1.3 in 75% of "
        "comparisons (95% interval 60% to 90%, 240 answers of 3 listeners, 4 seeds).",
    ),
    (
        {"change": 1.0986, "low": 0.4055, "high": 2.1972},
        "Listeners prefer a higher temperature: a clip at 1.3 is preferred to one at 0.7 in 75% of "
        "comparisons (95% interval 60% to 90%, 240 answers of 3 listeners, 4 seeds).",
    ),
    (
        {"shape": "hump", "peak": 1.0, "change": 1.0986, "low": 0.4055, "high": 2.1972},
        "Listeners prefer temperature near 1: a clip in the middle of the range is preferred to "
        "one at its ends in 75% of comparisons (95% interval 60% to 90%, 240 answers of 3 "
        "listeners, 4 seeds).",
    ),
    (
        {"shape": "dip", "peak": 1.0, "change": -1.0986, "low": -2.1972, "high": -0.4055},
        "Listeners prefer temperature away from 1: a clip at the ends of the range is preferred to "
        "one in its middle in 75% of comparisons (95% interval 60% to 90%, 240 answers of 3 "
        "listeners, 4 seeds).",
    ),
    (
        {"shape": "pair", "parameter": "model", "from_level": "a", "to_level": "b"}
        | {"change": 1.0986, "low": 0.4055, "high": 2.1972},
        "What listeners prefer depends on the model: a clip with b is preferred to one with a in "
        "75% of comparisons (95% interval 60% to 90%, 240 answers of 3 listeners, 4 seeds).",
    ),
]


def test_no_share_is_rounded_to_always_or_never():
    row = BASE | {"change": 9.0, "low": -9.0, "high": 18.0}
    sentence = preference_sentence(row, LABELS, "Listeners")
    assert "in >99% of comparisons (95% interval <1% to >99%, " in sentence


@pytest.mark.parametrize(("row", "sentence"), PREFERENCES)
def test_a_preference_is_said_as_a_share_of_comparisons(row, sentence):
    assert preference_sentence(BASE | row, LABELS, "Listeners") == sentence


def test_a_preference_of_one_listener_is_said_of_that_one():
    row = BASE | {"change": 1.0, "low": 0.5, "high": 1.5, "listeners": 1, "answers": 60}
    said = preference_sentence(row, LABELS, "Ada", one=True)
    assert said.startswith("Ada prefers a higher temperature: ")
    assert said.endswith(", 60 answers, 4 seeds).")


def test_ratings_are_said_in_points():
    row = BASE | {"feature": "quality", "change": -12.0, "low": -15.0, "high": -9.0}
    assert rating_sentence(row, LABELS, "Listeners") == (
        "Listeners rate quality lower at temperature 1.3 than at 0.7: by 12.0 of 100 points (95% "
        "interval 9.0 to 15.0, 240 answers of 3 listeners, 4 seeds)."
    )
    dip = row | {"feature": "fit", "shape": "dip", "peak": 1.0}
    assert rating_sentence(dip, LABELS, "Ada", one=True).startswith(
        "Ada rates the fit to the prompt lower for temperature near 1 than at the ends of its range"
    )


def test_what_is_claimed_ends_before_the_labels_of_prompts_which_may_have_colons():
    prompts = ["a long and slow ballad with drums", "another prompt that is long, with a choir"]
    row = BASE | {"feature": "quality", "shape": "pair", "parameter": "prompt"}
    row |= {"from_level": prompts[0], "to_level": prompts[1]}
    row |= {"change": 12.0, "low": 9.0, "high": 15.0}
    said = rating_sentence(row, FieldLabels.of(prompts), "Ada", one=True)
    claim, _, numbers = said.partition(": ")
    assert claim == "How Ada rates quality depends on the prompt"
    assert numbers.startswith("12.0 of 100 points higher with “2: another prompt that is long, ")


def test_whether_something_is_heard_is_said_with_its_count():
    row = {"parameter": "temperature", "same_clip": False, "correct": 38, "trials": 50}
    row |= {"share": 0.76, "low": 0.618, "high": 0.869, "significant": True}
    count = "X was assigned correctly in 38 of 50 trials (76%, 95% interval 62% to 87%; guessing"
    assert abx_sentence(row).startswith(f"A difference in temperature can be heard: {count}")
    unsure = abx_sentence(row | {"significant": False})
    assert unsure.startswith("Whether temperature can be heard is inconclusive: X was")
    same = abx_sentence(row | {"same_clip": True})
    assert same.startswith("Clips that differ in temperature can be told apart")
    assert same.endswith("so this does not say what was heard.")


def test_a_feature_that_goes_with_preference_is_said_as_a_correlation():
    row = {"parameter": "spectral_centroid_hz", "rho": -0.5, "low": -0.7, "high": -0.2}
    assert feature_sentence(row | {"clips": 54}) == (
        "Preferred clips have a lower brightness: rank correlation −0.50 (95% interval −0.70 to "
        "−0.20, 54 clips)."
    )
    silent = feature_sentence(row | {"parameter": "is_silent", "clips": 54})
    assert silent.startswith("Preferred clips are less often silent: rank correlation −0.50 ")


@pytest.fixture
def run(tmp_path):
    folder = make_run(tmp_path / "run", temperature=[0.7, 1.3], cfg_coef=[1, 3], seed=range(4))
    return RunTable.open(folder).run


def words(shown):
    return " ".join(BeautifulSoup(shown.data, "html.parser").get_text(" ").split())


def test_of_a_run_that_nobody_listened_to_there_is_no_section(run):
    assert words(preferences(RunTable.of(run))) == ""


def test_the_section_says_what_was_preferred_by_whom_and_how_sure_that_is(run):
    names = ["Ada <b>", "Bo", "Cy", "Di", "Ed"]
    compare(run, names, lambda record: -6 * record["temperature"])
    said = words(preferences(RunTable.of(run), ["spectral_centroid_hz"]))
    assert said.startswith("Blind listening 400 answers of 5 listeners, who did not know which")
    assert "Listeners prefer a lower temperature: a clip at 0.7 is preferred to one at 1.3" in said
    assert "Whether cfg_coef changes what is preferred is inconclusive." in said
    assert "2 tests were performed." in said
    assert "Preferred clips have a lower brightness: rank correlation −" in said
    assert "Ada <b> 80 0 – " in said  # a name, and no markup


def test_what_one_listener_says_is_not_said_of_others(run):
    compare(run, ["Ada"], lambda record: -8 * record["temperature"], answers=120)
    said = words(preferences(RunTable.of(run)))
    assert "Ada prefers a lower temperature" in said
    assert "claims are of these listeners alone" in said


def test_too_few_seeds_and_a_listener_who_favours_a_side_are_named(tmp_path):
    folder = make_run(tmp_path / "few", temperature=[0.7, 1.3], seed=[0, 1])
    run = RunTable.open(folder).run
    a, b = RunTable.of(run).rows["key"][:2]
    for _ in range(10):
        run.answers.append(answer(PairAnswer, a=a, b=b, choice="a"))
    said = words(preferences(RunTable.of(run)))
    assert "cannot be tested: " in said
    assert "10 of 10 favours one side" in said


@pytest.mark.parametrize(("at_the_top", "warns"), [(2, True), (1, False)])
def test_ratings_at_an_end_of_the_scale_are_said_to_hide_differences(run, at_the_top, warns):
    for number, clip in enumerate(RunTable.of(run).rows["key"][:16]):
        quality = 100 if number < at_the_top else 50 + number
        run.answers.append(answer(RatingAnswer, clip=clip, quality=quality, fit=None))
    said = words(preferences(RunTable.of(run)))
    warning = "Of the ratings of quality, 12% are at an end of the scale"
    assert (warning in said) == warns
