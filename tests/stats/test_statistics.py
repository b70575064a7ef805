"""What is claimed of a study is true of it: known effects are found, and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests

from musicgen_lab.stats.effects import holm, main_effects
from musicgen_lab.stats.interactions import interactions
from musicgen_lab.stats.intervals import mean_intervals
from musicgen_lab.stats.summary import summarise
from musicgen_lab.stats.trends import trends
from tests.support.studies import FEATURES, PARAMETERS, study

ALPHA, STUDIES, RESAMPLES = 0.05, 200, 10
MANY = [f"feature_{number}" for number in range(STUDIES * len(FEATURES))]


def rises(temperature, cfg_coef):
    return 10 * temperature


def studies_that_claim_something(table):
    """Return how many of the 200 studies, each of five features, claim anything."""
    study_of = table["feature"].map({name: i // len(FEATURES) for i, name in enumerate(MANY)})
    return sum(
        holm(asked.to_numpy()).min() < ALPHA for _, asked in table["p_value"].groupby(study_of)
    )


def effects_and_interactions(frame):
    return pd.concat(
        [
            main_effects(frame, PARAMETERS, MANY, resamples=RESAMPLES),
            interactions(frame, *PARAMETERS, MANY, resamples=RESAMPLES),
        ]
    )


@pytest.fixture(scope="module")
def without_effect():
    return study(np.random.default_rng(2026), features=MANY)


@pytest.mark.parametrize(
    "ask",
    [
        lambda frame: main_effects(frame, PARAMETERS, MANY, resamples=RESAMPLES),
        lambda frame: interactions(frame, *PARAMETERS, MANY, resamples=RESAMPLES),
        lambda frame: trends(frame, PARAMETERS, MANY, resamples=RESAMPLES),
        lambda frame: effects_and_interactions(frame),
    ],
    ids=["effects", "interactions", "trends", "effects and interactions, as a report asks"],
)
def test_of_200_studies_without_effect_no_more_than_the_stated_rate_claim_any(without_effect, ask):
    # What a true rate of 5% would exceed in one of a hundred such tests.
    assert studies_that_claim_something(ask(without_effect)) <= binom.ppf(0.99, STUDIES, ALPHA)


def test_levels_that_scatter_differently_do_not_raise_the_rate_of_false_alarms():
    frame = study(np.random.default_rng(5), features=MANY, by_seed_and_level=0)
    frame[MANY] = frame[MANY].mul(frame["temperature"].map({0.7: 1, 1.0: 2, 1.3: 3}), axis=0)
    for ask in (
        lambda: main_effects(frame, PARAMETERS, MANY, resamples=RESAMPLES),
        lambda: effects_and_interactions(frame),
    ):
        assert studies_that_claim_something(ask()) <= binom.ppf(0.99, STUDIES, ALPHA)


def test_an_effect_of_temperature_is_found_and_nothing_else():
    frame = study(np.random.default_rng(0), seeds=6, effects=[("feature_2", rises)])
    effects = main_effects(frame, PARAMETERS, FEATURES)
    found = effects[effects["conclusive"]]
    assert found[["parameter", "feature"]].to_numpy().tolist() == [["temperature", "feature_2"]]
    (row,) = found.itertuples()
    assert (row.levels, row.seeds, row.clips) == (3, 6, 54)
    assert row.low < 6 < row.high  # 10 times from 0.7 to 1.3
    assert row.change == pytest.approx(6, abs=1)
    assert row.effect_size > 0.8
    assert row.note == ""
    seen = trends(frame, PARAMETERS, FEATURES).query("conclusive")
    assert seen[["parameter", "feature"]].to_numpy().tolist() == [["temperature", "feature_2"]]
    assert seen["rho"].to_list() == [1.0]
    assert not interactions(frame, *PARAMETERS, FEATURES)["conclusive"].any()


def test_an_interaction_is_found_where_the_effects_alone_cancel():
    def crossed(temperature, cfg_coef):
        return 10 * (temperature - 1) * (cfg_coef - 3)

    frame = study(np.random.default_rng(1), seeds=6, effects=[("feature_0", crossed)])
    found = interactions(frame, *PARAMETERS, FEATURES).query("conclusive")
    assert list(found["feature"]) == ["feature_0"]
    # The effect of temperature is 0.6 x 10 x 2 at cfg_coef 5, and minus that at 1.
    assert found["low"].item() < 24 < found["high"].item()
    assert found["at_lowest"].item() == pytest.approx(-12, abs=2)
    assert found["at_highest"].item() == pytest.approx(12, abs=2)
    assert not main_effects(frame, PARAMETERS, FEATURES)["conclusive"].any()


def test_effects_that_add_up_but_for_rounding_are_no_interaction():
    def sums(temperature, cfg_coef):
        return (1000 * temperature + cfg_coef).astype(np.float32)

    frame = study(np.random.default_rng(0)).assign(feature_0=0.0)
    frame["feature_0"] = sums(frame["temperature"] / 3, frame["cfg_coef"] / 7) + frame["seed"]
    (row,) = interactions(frame, *PARAMETERS, ["feature_0"]).itertuples()
    assert np.isnan(row.p_value)
    assert row.note == "the effect of each is the same at every value of the other"


def test_the_numbers_are_those_of_a_repeated_measures_anova():
    frame = study(np.random.default_rng(3), effects=[("feature_0", rises)])
    theirs = AnovaRM(frame, "feature_0", "seed", within=PARAMETERS).fit().anova_table
    effect = main_effects(frame, PARAMETERS, ["feature_0"]).set_index("parameter")
    crossed = interactions(frame, *PARAMETERS, ["feature_0"])
    both = pd.concat([effect, crossed.set_index(pd.Index(["temperature:cfg_coef"]))])
    for name, size, p_value in both[["effect_size", "p_value"]].itertuples():
        ratio, df, df_error = theirs.loc[name, ["F Value", "Num DF", "Den DF"]]
        assert size == pytest.approx(ratio * df / (ratio * df + df_error))
        if ratio > 2:  # what could be taken for an effect is corrected to be less certain
            assert p_value >= theirs.loc[name, "Pr > F"] * 0.999


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_nothing_is_concluded_and_the_note_says_why(seeds):
    frame = study(np.random.default_rng(0), seeds=seeds, effects=[("feature_0", rises)])
    effects = main_effects(frame, PARAMETERS, FEATURES)
    assert not effects["conclusive"].any()
    assert effects[["change", "low", "p_value", "p_adjusted"]].isna().all(axis=None)
    assert effects["note"][0] == (
        f"{seeds} seed{'s' * (seeds > 1)} with a value at every temperature; at least 3 are needed"
    )


def test_what_cannot_be_asked_is_said_for_each_feature():
    frame = study(np.random.default_rng(0)).assign(cfg_coef=3.0, feature_1=7.0, feature_2=np.nan)
    notes = main_effects(frame, PARAMETERS, FEATURES).set_index(["parameter", "feature"])["note"]
    assert notes["temperature", "feature_1"] == "the feature is the same in all clips"
    assert notes["temperature", "feature_2"].startswith("0 seeds with a value")
    assert notes["cfg_coef", "feature_0"] == "cfg_coef has a single value"
    assert main_effects(frame.iloc[:0], PARAMETERS, FEATURES)["conclusive"].sum() == 0


def test_a_clip_without_a_value_takes_only_its_counterparts_along():
    frame = study(np.random.default_rng(0), effects=[("feature_0", rises)])
    frame.loc[frame.query("temperature == 0.7 and cfg_coef == 1 and seed == 0").index, FEATURES] = (
        np.nan
    )
    effects = main_effects(frame, PARAMETERS, ["feature_0"])
    assert effects["clips"].to_list() == [33, 33]
    assert effects["note"][0].startswith("3 clips left out")
    assert effects["change"][0] == pytest.approx(6, abs=1)


def test_a_parameter_without_order_is_compared_by_its_largest_and_smallest_mean():
    frame = study(np.random.default_rng(0), seeds=6)
    frame["model"] = frame["temperature"].map({0.7: "b", 1.0: "c", 1.3: "a"})
    frame["feature_0"] += frame["model"].map({"a": 0, "b": 8, "c": 2})
    effects = main_effects(frame, ["model", "cfg_coef"], FEATURES)
    assert effects["conclusive"].to_list() == [True] + [False] * 9
    assert effects["change"][0] == pytest.approx(8, abs=1.5)
    assert "model" not in set(trends(frame, ["model", "cfg_coef"], FEATURES)["parameter"])


def test_a_design_without_a_grid_has_trends_over_its_points():
    rng = np.random.default_rng(0)
    points = rng.permuted(np.tile(np.arange(40.0), (2, 1)), axis=1)
    noise = pd.DataFrame(rng.normal(size=(40, len(MANY[:100]))), columns=MANY[:100])
    frame = noise.assign(temperature=points[0], cfg_coef=points[1], seed=0)
    frame["feature_0"] += np.exp(frame["temperature"] / 10)
    found = trends(frame, PARAMETERS, MANY[:100], resamples=RESAMPLES)
    assert found["conclusive"][0]
    assert np.mean(found["p_value"][1:] < ALPHA) <= binom.ppf(0.99, 199, ALPHA) / 199
    (row,) = trends(frame, ["temperature"], ["feature_0"]).itertuples()
    assert 0.7 < row.low < row.rho < row.high
    assert trends(frame.iloc[:9], PARAMETERS, ["feature_0"])["note"][0] == (
        "9 points with a value; at least 10 are needed"
    )
    assert not main_effects(frame, PARAMETERS, ["feature_0"])["conclusive"].any()


def test_holms_correction_is_known_and_passes_over_what_was_not_tested():
    known = [0.03, 0.06, np.nan, 0.06]
    assert holm(np.array([0.01, 0.04, np.nan, 0.03])) == pytest.approx(known, nan_ok=True)
    p_values = np.random.default_rng(0).beta(0.2, 1, 50)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_a_summary_has_mean_spread_number_and_interval_of_every_cell():
    frame = pd.DataFrame({"t": list("aaaabbcc"), "x": [1, 2, 3, 6, 4, np.nan, 5, 7]})
    summary = summarise(frame, ["t"], "x")
    assert list(summary.columns) == ["t", "mean", "sd", "n", "low", "high"]
    assert summary["mean"].to_list() == [3, 4, 6]
    assert summary["n"].to_list() == [4, 1, 2]
    assert summary["sd"][0] == pytest.approx(np.std([1, 2, 3, 6], ddof=1))
    assert summary["low"][0] == pytest.approx(3 - 3.182 * np.sqrt(14 / 3) / 2, abs=0.01)
    assert summary["high"][0] == pytest.approx(3 + 3.182 * np.sqrt(14 / 3) / 2, abs=0.01)
    assert summary[["low", "high"]].iloc[1:].isna().all(axis=None)  # too few


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8, 20])
def test_intervals_hold_the_mean_as_often_as_they_say(n):
    values = np.random.default_rng(0).normal(5, 2, (1000, n))
    low, high = mean_intervals(values, resamples=999)
    assert np.mean((low < 5) & (high > 5)) == pytest.approx(0.95, abs=0.025)
    plain_width = 2 * 1.96 * 2 / np.sqrt(n)
    assert n < 8 or np.mean(high - low) < 1.5 * plain_width
