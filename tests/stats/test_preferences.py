"""What is said of preferences is true of the listeners who had them, and nothing is said else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from musicgen_lab.runs.answers import AbxAnswer, PairAnswer, RatingAnswer
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.bradley_terry import Design, Strengths
from musicgen_lab.stats.preferences import PreferenceStudy
from musicgen_lab.stats.ratings import MeanRatings
from scripts.simulate_preferences import ALPHA, Setting, false_claims, power
from tests.support.listeners import answer, compare
from tests.support.report_runs import make_run

TEMPERATURES, CFG_COEFS, SEEDS = [0.7, 1.0, 1.3], [1, 3], [0, 1, 2, 3]


@pytest.fixture
def run(tmp_path):
    folder = make_run(
        tmp_path / "run",
        temperature=TEMPERATURES,
        cfg_coef=CFG_COEFS,
        seed=SEEDS,
        prompt="calm guitar",
        duration=1,
    )
    return RunTable.open(folder).run


def cool(record):
    return -6 * record["temperature"]


@pytest.mark.parametrize(
    "setting",
    [
        Setting((3, 3), 3, 1, 60, active=False),
        Setting((3, 3), 6, 5, 40, tastes=3.0, active=False),
        Setting((2,), 4, 1, 28),
        Setting((3, 3), 6, 1, 27, rated=True),
        Setting((3, 3), 6, 5, 30, rated=True, tastes=3.0, scales=0.7),
    ],
    ids=str,
)
def test_no_more_tests_without_an_effect_than_stated_claim_one(setting):
    studies = 200
    # What a true rate of 5% would exceed in one of a thousand such tests.
    assert false_claims(setting, studies) <= binom.ppf(0.999, studies, ALPHA) / studies


@pytest.mark.parametrize(
    ("setting", "estimate"),
    [(Setting((3,), 6, 1, 100), 1.5), (Setting((3,), 6, 3, 18, rated=True), 15)],
    ids=["compared", "rated"],
)
def test_an_effect_is_estimated_without_bias_and_its_intervals_hold_it(setting, estimate):
    it = power(setting, 1.5, 60)
    assert it.estimate == pytest.approx(estimate, rel=0.2)
    assert it.covered >= binom.ppf(0.001, 60, 1 - ALPHA) / 60
    assert it.found > 0.2


def test_strengths_are_those_of_bradley_and_terry():
    """Two clips: the log-odds of 30 wins in 40, as one draw of each with the average is little."""
    pairs = np.array([[0, 1]] * 400)
    fit = Strengths.fit(pairs, np.array([1.0] * 300 + [0.0] * 100), 2)
    assert fit.value[0] - fit.value[1] == pytest.approx(np.log(3), abs=0.02)
    half = Strengths.fit(pairs, np.array([1.0] * 200 + [0.5] * 200), 2)
    assert half.value == pytest.approx(fit.value, abs=1e-6)  # no difference is half a win each


def test_a_clip_that_always_wins_and_clips_that_were_never_linked_have_strengths():
    fit = Strengths.fit(np.array([[0, 1], [0, 1], [2, 3]]), np.array([1.0, 1.0, 0.5]), 5)
    assert np.isfinite(fit.value).all()
    assert fit.value[0] > 0 > fit.value[1]
    assert fit.value[2:] == pytest.approx([0, 0, 0], abs=1e-6)


def test_what_a_listener_changes_is_what_is_lost_without_their_answers():
    rng = np.random.default_rng(0)
    pairs = np.array([rng.choice(6, 2, replace=False) for _ in range(400)])
    score, rater = rng.integers(0, 2, 400).astype(float), np.arange(400) % 5
    fit = Strengths.fit(pairs, score, 6, rater)
    others = rater != 2
    without = Strengths.fit(pairs[others], score[others], 6)
    assert fit.by_rater[2] == pytest.approx(fit.value - without.value, abs=0.01)


def test_ratings_do_not_depend_on_who_rated_which_clips():
    """A strict and a generous listener, each of some clips; what they add is their own mean."""
    clips = np.array([-20.0, -5.0, 5.0, 20.0])
    ratings = np.array([30 + clips, 70 + clips, 50 + clips])
    ratings[0, 2:] = ratings[1, :1] = np.nan
    assert MeanRatings.fit(ratings).value == pytest.approx(clips, abs=1e-3)


def test_what_a_listener_changes_of_ratings_is_what_is_lost_without_them():
    ratings = np.array([[10.0, 20.0, np.nan], [50.0, 90.0, 70.0], [np.nan, np.nan, 40.0]])
    fit = MeanRatings.fit(ratings)
    assert fit.by_rater[2] == pytest.approx(0, abs=1e-3)  # a single rating compares nothing
    assert fit.value - fit.by_rater[0] == pytest.approx([-20, 20, 0], abs=1e-3)


def test_a_design_that_grows_is_that_of_all_its_comparisons():
    pairs, candidates = np.array([[0, 1], [0, 1], [2, 3], [1, 3]]), np.array([[0, 2], [1, 2]])
    grown = Design(pairs[:1], 4)
    for pair in pairs[1:]:
        grown.add(pair)
    assert grown.information(candidates) == pytest.approx(Design(pairs, 4).information(candidates))


def test_the_most_informative_pair_is_of_clips_that_little_is_known_of():
    pairs = np.array([[0, 1], [0, 2], [2, 3]])
    design = Design(np.array([[0, 1], [0, 1], [0, 2]]), 4)
    assert design.information(pairs).argmax() == 2


def test_a_taste_is_found_and_said_of_listeners_in_general_from_five_on(run):
    compare(run, ["Ada", "Bo", "Cy", "Di", "Ed"], cool)
    effects = PreferenceStudy.of(RunTable.of(run)).effects.set_index("parameter")
    row = effects.loc["temperature"]
    assert row["significant"] and row["general"]
    assert row["change"] < 0 and row["low"] < -3.6 < row["high"]
    assert (row["answers"], row["listeners"], row["seeds"]) == (400, 5, 4)
    assert not effects.loc["cfg_coef"]["significant"]


def test_opposite_tastes_are_no_preference_of_listeners_in_general(run):
    """Three like cool clips and two like hot ones: of these five it might be said."""
    compare(run, ["Ada", "Bo", "Cy"], cool)
    compare(run, ["Di", "Ed"], lambda record: -cool(record), seed=1)
    effects = PreferenceStudy.of(RunTable.of(run)).effects.set_index("parameter")
    assert not effects.loc["temperature"]["significant"]


def test_of_one_listener_it_is_said_for_that_one_alone(run):
    compare(run, ["Ada"], cool, answers=150)
    study = PreferenceStudy.of(RunTable.of(run))
    row = study.effects.set_index("parameter").loc["temperature"]
    assert row["significant"] and not row["general"]
    assert study.listener_names == ["Ada"]


def test_it_is_not_said_of_listeners_in_general_where_one_gave_nearly_all_answers(run):
    compare(run, ["Ada"], cool, answers=80)
    compare(run, ["Bo", "Cy", "Di", "Ed"], cool, answers=2, seed=1)
    row = PreferenceStudy.of(RunTable.of(run)).effects.set_index("parameter").loc["temperature"]
    assert (row["listeners"], row["general"]) == (5, False)


def test_listeners_who_answered_little_are_one_replicate_together(run):
    compare(run, ["Ada", "Bo", "Cy", "Di", "Ed"], cool)
    passing = [f"visitor {number}" for number in range(12)]
    compare(run, passing, cool, answers=2, seed=1)
    keys = list(RunTable.of(run).rows["key"])
    for name in ["Ada", *passing, "Bo", "Cy", "Di", "Ed"]:
        for number, clip in enumerate(keys[: 2 if name in passing else 20]):
            quality = 10 + 80 * number if name in passing else 50
            rating = {"clip": clip, "quality": quality, "fit": None}
            run.answers.append(answer(RatingAnswer, listener=name, **rating))
    liking = PreferenceStudy.of(RunTable.of(run)).liking
    for each in liking.values():
        assert (len(each.listeners), each.active) == (17, 5)
        assert each.by_listener.shape == (6, 24)
    changes = liking["quality"].by_listener
    assert (changes[:, 1] - changes[:, 0] > 0).tolist() == [False] * 5 + [True]


def test_ratings_are_compared_within_listeners(run):
    """One uses the upper end of the scale and one the lower; both rate cool clips higher."""
    rng = np.random.default_rng(0)
    for listener, middle in (("Ada", 80), ("Bo", 30)):
        for record in RunTable.of(run).rows.to_dict("records"):
            quality = middle - round(20 * (record["temperature"] - 1)) + int(rng.integers(-3, 4))
            fit = 50 + int(rng.integers(-5, 6))
            given = {"clip": record["key"], "quality": quality, "fit": fit}
            run.answers.append(answer(RatingAnswer, listener=listener, **given))
    effects = PreferenceStudy.of(RunTable.of(run)).effects.set_index(["feature", "parameter"])
    row = effects.loc[("quality", "temperature")]
    assert row["significant"] and row["change"] == pytest.approx(-12, abs=2)
    assert not effects.loc["fit"]["significant"].any()


def test_features_that_go_with_being_preferred_are_named(run):
    """The pitch of these clips rises with the temperature."""
    compare(run, ["Ada"], cool, answers=200)
    study = PreferenceStudy.of(RunTable.of(run))
    row = study.features(["spectral_centroid_hz", "silence_ratio"]).set_index("parameter")
    row = row.loc["spectral_centroid_hz"]
    assert row["significant"] and row["rho"] < -0.4 and row["high"] < 0


def test_every_feature_that_is_no_text_is_correlated_with_being_preferred(run):
    compare(run, ["Ada"], cool)
    names = ["diversity_db", "is_silent", "key_estimate", "spectral_centroid_hz"]
    table = PreferenceStudy.of(RunTable.of(run)).features(names)
    assert list(table["parameter"]) == ["diversity_db", "is_silent", "spectral_centroid_hz"]
    assert table["rho"].notna().tolist() == [True, False, True]  # no clip is silent


def test_a_listener_who_always_prefers_the_first_one_is_told_apart(run):
    keys = list(RunTable.of(run).rows["key"])
    for index in range(20):
        choice = {"a": keys[index], "b": keys[index + 1]}
        run.answers.append(answer(PairAnswer, choice="a", **choice))
        even = "ab"[index % 2]
        run.answers.append(answer(PairAnswer, listener="Bo", choice=even, **choice))
    listeners = PreferenceStudy.of(RunTable.of(run)).listeners.set_index("listener")
    assert listeners.loc["Ada", "side_p"] == pytest.approx(2 * binomtest(20, 20).pvalue)
    assert listeners.loc["Bo", "side_p"] == 1
    assert (listeners.loc["Ada", "first"], listeners.loc["Ada", "decided"]) == (20, 20)


def test_repeats_tell_how_consistent_a_listener_is(run):
    a, b = RunTable.of(run).rows["key"][:2]
    first = [answer(PairAnswer, a=a, b=b, choice=choice) for choice in ("a", "a", "b")]
    again = [
        answer(PairAnswer, a=b, b=a, choice=choice, repeats=earlier.id)
        for choice, earlier in zip(("b", "none", "b"), first, strict=True)
    ]  # as before, half, and the other one
    rated = answer(RatingAnswer, clip=a, quality=60, fit=10)
    rated_again = answer(RatingAnswer, clip=a, quality=52, fit=90, repeats=rated.id)
    for one in (*first, *again, rated, rated_again, answer(PairAnswer, a=a, b=b, choice="skip")):
        run.answers.append(one)
    (row,) = PreferenceStudy.of(RunTable.of(run)).listeners.to_dict("records")
    assert (row["repeats"], row["agreed"]) == (3, 1.5)
    assert (row["rated_again"], row["rating_change"]) == (1, 8)
    assert (row["answers"], row["skipped"]) == (9, 1)


def test_abx_is_judged_by_the_exact_test_against_guessing(run):
    rows = RunTable.of(run).rows.set_index(["temperature", "cfg_coef", "seed"])["key"]
    for index in range(20):
        cold, hot, x = rows[0.7, 1, 0], rows[1.3, 1, 0], rows[1.3, 1, 1]
        choice = "b" if index < 16 else "a"
        run.answers.append(answer(AbxAnswer, a=cold, b=hot, x=x, x_is="b", choice=choice))
        low, high = rows[1.0, 1, 0], rows[1.0, 3, 0]
        choice = "ab"[index % 2]
        run.answers.append(answer(AbxAnswer, a=low, b=high, x=low, x_is="a", choice=choice))
    abx = PreferenceStudy.of(RunTable.of(run)).abx.set_index("parameter")
    row = abx.loc["temperature"]
    assert (row["correct"], row["trials"], row["same_clip"]) == (16, 20, False)
    assert row["p_value"] == pytest.approx(binom.sf(15, 20, 0.5))
    assert row["significant"] and row["low"] > 0.5
    assert abx.loc["cfg_coef", "same_clip"] and not abx.loc["cfg_coef", "significant"]


def test_answers_about_clips_that_are_not_looked_at_do_not_count(run):
    compare(run, ["Ada"], cool, answers=30)
    table = RunTable.of(run)
    some = PreferenceStudy.of(table.select(seed=[0, 1]))
    assert 0 < len(some.answers) < 30
    assert set(some.answers["a"]) <= set(table.select(seed=[0, 1]).rows["key"])


def test_without_answers_every_table_is_empty(run):
    study = PreferenceStudy.of(RunTable.of(run))
    assert study.answers.empty and study.effects.empty and study.features().empty
    assert study.listeners.empty and study.abx.empty
