"""A blind test finds the taste of simulated listeners, and none where they have none."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy.stats import binom

from musicgen_lab import InvalidRequest
from musicgen_lab.listening.blind.session import BlindSession
from musicgen_lab.listening.blind.simulated import answer_by_taste
from musicgen_lab.results import Results
from musicgen_lab.stats.study_tables import ALPHA
from tests.support.report_runs import make_run

LISTENERS = ("Ada", "Bo", "Cy", "Di", "Ed")


def make_results(folder):
    return Results.open(
        make_run(folder, temperature=[0.7, 1.0, 1.3], cfg_coef=[1, 3], seed=range(4))
    )


def listen(results, taste, *, answers=40, seed=0):
    for number, name in enumerate(LISTENERS):
        session = BlindSession(results.table, name, seed=seed)
        answer_by_taste(session, taste, answers=answers, seed=100 * seed + number)
    return results.preferences().effects.set_index("parameter")


def test_the_taste_of_listeners_is_found_by_parameter_direction_and_size(tmp_path):
    results = make_results(tmp_path / "run")
    effects = listen(results, {"temperature": -4.0})
    row = effects.loc["temperature"]
    assert row["significant"] and row["general"]
    assert row["low"] < -4.0 * 0.6 < row["high"] < 0
    assert not effects.loc["cfg_coef", "significant"]
    assert len(results.answers()) == 200
    assert set(results.preferences().listeners["repeats"]) == {5}


def test_a_taste_for_a_feature_is_found_in_the_feature(tmp_path):
    results = make_results(tmp_path / "run")
    listen(results, {"spectral_centroid_hz": 0.02})
    features = results.preferences().features(["spectral_centroid_hz"])
    assert features["significant"].all() and (features["rho"] > 0.5).all()


def test_listeners_without_a_taste_for_a_parameter_are_said_to_have_none(tmp_path):
    """As often as is stated: in at most 5% of the tests."""
    results = make_results(tmp_path / "run")
    tests, claims = 20, 0
    for number in range(tests):
        effects = listen(results, {}, answers=12, seed=number)
        claims += effects["significant"].any()
        shutil.rmtree(results.folder / "answers")
    assert claims <= binom.ppf(0.999, tests, ALPHA)


def test_what_cannot_be_simulated_is_refused(tmp_path):
    results = make_results(tmp_path / "run")
    with pytest.raises(InvalidRequest, match="the session's mode is rate"):
        answer_by_taste(BlindSession(results.table, "Ada", "rate"), {}, answers=1, seed=0)
    with pytest.raises(InvalidRequest, match="there is no column 'tempo' to have a taste in"):
        session = BlindSession(results.table, "Ada")
        answer_by_taste(session, {"tempo": 1.0}, answers=1, seed=0)
    assert np.all(results.answers().empty)
