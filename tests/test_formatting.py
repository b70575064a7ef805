"""Numbers are written with the digits that a reader needs, and no more."""

from __future__ import annotations

import pytest

from musicgen_lab.formatting import (
    decimals_for,
    decimals_within,
    did_you_mean,
    mid_sentence,
    signed,
    value,
    value_with_unit,
)


@pytest.mark.parametrize(
    ("limits", "decimals"),
    [((0, 0.5), 3), ((1, 9), 2), ((-60, -20), 1), ((100, 900), 0), ((0, 5000), 0), ((0, 0), 0)],
)
def test_three_digits_of_the_larger_limit_are_kept(limits, decimals):
    assert decimals_for(limits) == decimals


def test_limits_that_are_close_together_have_one_more():
    assert decimals_for((-23.48, -23.46)) == 2


@pytest.mark.parametrize(
    ("low", "high", "decimals"),
    [(0.0182, 0.0608, 3), (0.81, 1.69, 2), (-500, -200, 0), (0, 0.5, 2), (0.5, 0.5, 3)],
)
def test_an_estimate_has_two_digits_of_its_uncertainty(low, high, decimals):
    assert decimals_within(low, high) == decimals


def test_minus_is_a_minus_sign_and_thousands_are_grouped():
    assert signed(-1234.5, 1) == "−1,234.5"
    assert signed(2, 1, plus=True) == "+2.0"


def test_values_of_features_are_formatted_for_people():
    assert [value(v) for v in (True, False, None, float("nan"), "G minor", 0.0)] == [
        "yes", "no", "–", "–", "G minor", "0",
    ]  # fmt: skip
    assert [value(v) for v in (8233.4, -17.25, 0.25, 0.0012)] == [
        "8,233",
        "−17.2",
        "0.25",
        "0.0012",
    ]


def test_a_unit_follows_what_has_one():
    assert value_with_unit(440.0, "Hz") == "440 Hz"
    assert value_with_unit(0.5, "0 to 1") == "0.50"
    assert value_with_unit(float("nan"), "Hz") == "–"


def test_labels_fit_into_a_sentence():
    assert mid_sentence("Onset rate") == "onset rate"
    assert mid_sentence("RMS level") == "RMS level"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("temprature", " (did you mean temperature?)"),  # misspelt
        ("cfg", " (did you mean cfg_coef?)"),  # a part of it
        ("Top-K", " (did you mean top_k?)"),
        ("Prompt", " (did you mean prompt?)"),  # and not prompt_b
        ("top", " (did you mean top_k or top_p?)"),
        ("coef", " (did you mean cfg_coef?)"),
        ("p", ""),  # a part of too many
        ("loudness", ""),
        (5, ""),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_it_may_stand_for(given, hint):
    names = ["prompt", "prompt_b", "temperature", "top_k", "top_p", "cfg_coef"]
    assert did_you_mean(given, names) == hint
