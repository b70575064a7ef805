"""What is claimed of a study is true of it: known effects are found, and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, chi2, ttest_ind
from statsmodels.stats.multitest import multipletests

from musicgen_lab.stats.contrasts import (
    PERMUTATIONS,
    Clips,
    Estimate,
    Residuals,
    permutation_p_values,
)
from musicgen_lab.stats.designs import indicators, pair_weights
from musicgen_lab.stats.effects import holm, main_effects
from musicgen_lab.stats.interactions import interactions
from musicgen_lab.stats.intervals import mean_intervals
from musicgen_lab.stats.summary import summarise
from musicgen_lab.stats.trends import trends
from scripts.simulate_claims import ALPHA, Setting, false_studies, power
from tests.support.studies import FEATURES, PARAMETERS, study


def rises(temperature, cfg_coef):
    return 10 * temperature


@pytest.mark.parametrize(
    "setting",
    [
        Setting((3, 3), 3),
        Setting((3, 3), 4, missing=0.1),
        Setting((3, 3), 3, "octaves"),
        Setting((3, 3), 3, scatter=(0, 0)),
        Setting((6,), 3, scatter=(0, 5)),
        Setting((2,), 3, "half and half"),
        Setting((5, 5), 4, by_seed_and_level=0.25),
        Setting((5, 3, 3), 3, unordered=(0,), scatter=(0, 2)),
        Setting((3,), 12, "half and half"),
        Setting((3,), 3, "octaves"),
        Setting((3,), 6, scatter=(0, 2), failing=True),
        Setting((3, 3), 4, scatter=(0, 2), failing=True),
        Setting((3, 3), 8, by_seed_and_level=1.0),
    ],
    ids=str,
)
def test_of_studies_without_effect_no_more_than_the_stated_rate_claim_any(setting):
    studies = 400
    # What a true rate of 5% would exceed in one of a thousand such tests.
    assert false_studies(setting, studies) <= binom.ppf(0.999, studies, ALPHA) / studies


def test_a_rise_is_found_as_often_as_by_analysis_of_variance_with_seeds_as_blocks():
    ours, blocks = power(4, lambda level: level * 1.0, 400)
    assert ours >= blocks - 0.03 and ours > 0.7


def test_an_effect_of_temperature_is_found_and_nothing_else():
    frame = study(np.random.default_rng(0), seeds=6, effects=[("feature_2", rises)])
    effects = main_effects(frame, PARAMETERS, FEATURES)
    significant = effects[effects["significant"]]
    assert significant[["parameter", "feature"]].to_numpy().tolist() == [
        ["temperature", "feature_2"]
    ]
    (row,) = significant.itertuples()
    assert (row.levels, row.seeds, row.clips, row.shape) == (3, 6, 54, "trend")
    assert (row.from_level, row.to_level, row.note) == (0.7, 1.3, "")
    assert row.low < 6 < row.high  # 10 times from 0.7 to 1.3
    assert row.change == pytest.approx(6, abs=1)
    # Clips scatter by the root of 1 + 0.7² + 2 x 0.5² = 1.41 within their cells.
    assert row.effect_size_low < 6 / 1.41 < row.effect_size_high
    assert not interactions(frame, *PARAMETERS, FEATURES)["significant"].any()


def test_two_levels_are_compared_like_welchs_test_does():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"temperature": np.repeat([0.5, 1.5], 12), "seed": [*range(12)] * 2})
    frame["feature"] = rng.normal(size=24) * np.repeat([1, 4], 12) + np.repeat([0, 3], 12)
    (row,) = main_effects(frame, ["temperature"], ["feature"]).itertuples()
    high, low = (frame["feature"][frame["temperature"] == at] for at in (1.5, 0.5))
    welch = ttest_ind(high, low, equal_var=False)
    assert row.change == pytest.approx(high.mean() - low.mean())
    interval = welch.confidence_interval(0.95)
    half = (row.high - row.low) / 2
    # Somewhat wider: a variance that came out too small by chance is allowed for.
    assert 1 <= half / (interval.high - row.change) < 1.05
    assert welch.pvalue <= row.p_value < 1.5 * welch.pvalue


def test_a_level_whose_few_clips_all_say_yes_is_not_taken_for_certain():
    """Its variance is that of all clips: 0.3 where 3 of 6 say yes, 0 where 6 do, so 0.15."""
    level, yes = np.repeat([0, 1], 6), np.array([[0, 1] * 3 + [1] * 6], float).T
    residuals = Residuals.of(Clips.of(yes, range(12)), indicators(level), level)
    difference = residuals.contrast(pair_weights(level, np.zeros(12, int), 0, 1))
    assert difference.value == pytest.approx(0.5)
    assert difference.se == pytest.approx(np.sqrt(0.3 / 6 + 0.15 / 6))


def test_a_permutation_test_counts_the_ways_in_which_clips_can_be_dealt():
    """All three of one level above those of the other: 2 of 20 ways; within 2 blocks, 2 of 4."""
    weights, values = np.repeat([-1.0, 1.0], 3), np.arange(6.0)[:, np.newaxis]
    (alone,) = permutation_p_values(values, weights, np.zeros(6, int))
    assert alone == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / PERMUTATIONS))
    (in_blocks,) = permutation_p_values(values[:4], weights[1:5], np.array([0, 1, 0, 1]))
    assert in_blocks == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / PERMUTATIONS))


def test_clips_of_a_seed_that_are_nearly_the_same_add_no_certainty():
    """cfg_coef does next to nothing here."""
    rng = np.random.default_rng(7)
    frame = study(rng, effects=[("feature_0", lambda t, c: 3 * t)]).query("cfg_coef == 1")
    copied = pd.concat([frame.assign(cfg_coef=c) for c in (1, 3, 5)], ignore_index=True)
    copied[FEATURES] += rng.normal(0, 0.01, copied[FEATURES].shape)
    once = main_effects(frame, ["temperature"], FEATURES)
    thrice = main_effects(copied, PARAMETERS, FEATURES)[: len(once)]
    widths = [(table["high"] - table["low"]).to_numpy() for table in (once, thrice)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


@pytest.mark.parametrize("t", [50.0, 1e3, 1e4, -1e6])
def test_the_interval_of_a_huge_effect_size_is_that_of_the_standard_deviation_alone(t):
    """The difference itself is known nearly exactly then, and what varies is the divisor."""
    one = np.ones(1)
    size, *interval = Estimate(t * one, one, 4 * one).effect_size(one, 0.05)
    factors = np.sqrt(chi2.ppf([0.025, 0.975], 4) / 4)
    assert size == t
    assert np.ravel(interval) == pytest.approx(sorted(t * factors), rel=1e-2)


def test_a_hump_is_no_rise_whatever_lies_at_its_ends():
    """The means of a sweep over six temperatures, of which the last exceeds the first."""
    temperatures = [0.3, 0.6, 0.9, 1.2, 1.5, 1.8]
    means = dict(zip(temperatures, [-27.6, -24.5, -20.6, -22.0, -23.3, -26.2], strict=True))
    frame = pd.DataFrame([(t, s) for t in temperatures for s in range(6)], columns=["t", "seed"])
    frame["x"] = frame["t"].map(means) + np.random.default_rng(1).normal(0, 1.2, len(frame))
    (row,) = main_effects(frame, ["t"], ["x"]).itertuples()
    assert row.significant and (row.shape, row.peak) == ("hump", 0.9)
    assert 0 < row.low < row.change < row.high


def test_a_step_at_the_middle_level_alone_is_neither_rise_nor_fall():
    frame = study(np.random.default_rng(2), seeds=6)
    frame["feature_0"] += 4.0 * (frame["temperature"] == 1.0)
    (row,) = main_effects(frame, ["temperature"], ["feature_0"]).itertuples()
    assert row.significant and (row.shape, row.peak) == ("hump", 1.0)
    frame["feature_0"] *= -1
    (row,) = main_effects(frame, ["temperature"], ["feature_0"]).itertuples()
    assert row.significant and row.shape == "dip" and row.high < 0


def test_no_direction_is_significant_where_its_interval_holds_zero():
    """Within the range the feature falls steadily, and at its end is back where it began."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame([(t, s) for t in range(6) for s in range(8)], columns=["t", "seed"])
    frame["x"] = frame["t"].map({0: 6, 1: 5, 2: 4, 3: 3, 4: 2, 5: 6}) + rng.normal(size=48)
    effects = main_effects(frame, ["t"], ["x"])
    assert not (effects["significant"] & (effects["shape"] == "trend")).any()


def test_equal_clips_do_not_differ_however_many_there_are():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame([(k, s) for k in (512, 2048) for s in range(8)], columns=["top_k", "seed"])
    frame["x"] = rng.normal(size=8)[frame["seed"]]
    frame["audio_sha256"] = frame["seed"].astype(str)
    (row,) = main_effects(frame, ["top_k"], ["x"]).itertuples()
    assert np.isnan(row.p_value) and not row.significant
    assert row.note == "the feature is the same at every level"


def test_rounding_of_equal_features_is_no_difference():
    rng = np.random.default_rng(6)
    for _ in range(50):
        frame = pd.DataFrame([(k, s) for k in (0, 1) for s in range(4)], columns=["k", "seed"])
        frame["x"] = 800 + rng.normal(size=4)[frame["seed"]] * 1e-6 + rng.normal(size=8) * 1e-7
        (row,) = main_effects(frame, ["k"], ["x"]).itertuples()
        assert not row.significant and np.isnan(row.p_value)


def test_copies_of_clips_in_other_cells_add_no_certainty():
    """top_k does nothing here: each of its values repeats the same recordings."""
    frame = study(np.random.default_rng(7), effects=[("feature_0", lambda t, c: 3 * t)])
    frame["audio_sha256"] = [str(number) for number in range(len(frame))]
    copied = pd.concat([frame.assign(top_k=k) for k in (512, 1024, 2048)], ignore_index=True)
    once = main_effects(frame, PARAMETERS, FEATURES)
    thrice = main_effects(copied, [*PARAMETERS, "top_k"], FEATURES)[: len(once)]
    columns = ["change", "low", "high", "p_value"]
    assert thrice[columns].to_numpy() == pytest.approx(once[columns].to_numpy(), rel=1e-6)


def test_features_without_scatter_claim_nothing():
    frame = pd.DataFrame([(t, s) for t in (0.5, 1.5) for s in range(3)], columns=["t", "seed"])
    frame["x"] = frame["t"].map({0.5: 2.0, 1.5: 4.0})
    (row,) = main_effects(frame, ["t"], ["x"]).itertuples()
    assert not row.significant
    assert row.note == "the feature does not vary between seeds, so chance cannot be judged"


def test_an_interaction_is_found_where_the_effects_alone_cancel():
    def crossed(temperature, cfg_coef):
        return 10 * (temperature - 1) * (cfg_coef - 3)

    frame = study(np.random.default_rng(1), seeds=6, effects=[("feature_0", crossed)])
    table = interactions(frame, *PARAMETERS, FEATURES)
    (row,) = table[table["significant"]].itertuples()
    assert row.feature == "feature_0"
    # The effect of temperature is 0.6 x 10 x 2 at cfg_coef 5, and minus that at 1.
    assert row.low < 24 < row.high
    assert row.at_lowest == pytest.approx(-12, abs=2)
    assert row.at_highest == pytest.approx(12, abs=2)
    assert row.change == pytest.approx(row.at_highest - row.at_lowest)
    assert not main_effects(frame, PARAMETERS, FEATURES)["significant"].any()


def test_effects_that_add_up_but_for_rounding_are_no_interaction():
    frame = study(np.random.default_rng(0))
    sums = (1000 * frame["temperature"] / 3 + frame["cfg_coef"] / 7).astype(np.float32)
    frame["feature_0"] = sums.astype(float)
    (row,) = interactions(frame, *PARAMETERS, ["feature_0"]).itertuples()
    assert np.isnan(row.p_value) and not row.significant


def test_missing_clips_take_no_others_along():
    frame = study(np.random.default_rng(8), seeds=6, effects=[("feature_0", rises)])
    lost = np.random.default_rng(9).random(len(frame)) < 0.1
    frame.loc[lost, "feature_0"] = np.nan
    effects = main_effects(frame, PARAMETERS, ["feature_0"])
    crossed = interactions(frame, *PARAMETERS, ["feature_0"])
    assert {*effects["clips"], *crossed["clips"]} == {len(frame) - lost.sum()}
    assert effects["change"][0] == pytest.approx(6, abs=1) and effects["significant"][0]


def test_a_level_with_a_single_clip_is_not_judged_by_how_others_scatter():
    frame = study(np.random.default_rng(8), effects=[("feature_0", rises)])
    frame = frame[(frame["temperature"] < 1.3) | ((frame["cfg_coef"] == 1) & (frame["seed"] == 0))]
    effects = main_effects(frame, PARAMETERS, ["feature_0"]).set_index("parameter")
    assert effects["p_value"].isna().to_dict() == {"temperature": True, "cfg_coef": False}
    assert effects["note"]["temperature"] == (
        "too few different clips with a value have temperature 1.3 to judge chance there"
    )
    (row,) = interactions(frame, *PARAMETERS, ["feature_0"]).itertuples()
    assert np.isnan(row.p_value)
    assert row.note == "temperature and cfg_coef are not crossed with two clips or more of each"


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_nothing_is_concluded_and_the_note_says_why(seeds):
    frame = study(np.random.default_rng(0), seeds=seeds, effects=[("feature_0", rises)])
    effects = main_effects(frame, PARAMETERS, FEATURES)
    assert not effects["significant"].any()
    assert effects[["change", "low", "p_value", "p_adjusted"]].isna().all(axis=None)
    assert effects["note"][0] == (
        f"{seeds} seed{'s' * (seeds > 1)} of each setting, and at least 3 are needed"
    )


def test_what_cannot_be_tested_is_noted_for_each_feature():
    frame = study(np.random.default_rng(0)).assign(cfg_coef=3.0, feature_1=7.0, feature_2=np.nan)
    notes = main_effects(frame, PARAMETERS, FEATURES).set_index(["parameter", "feature"])["note"]
    assert notes["temperature", "feature_1"] == "the feature is the same in all clips"
    assert notes["temperature", "feature_2"] == "no clip has a value"
    assert notes["cfg_coef", "feature_0"] == "all clips with a value have the same cfg_coef"
    assert main_effects(frame.iloc[:0], PARAMETERS, FEATURES)["significant"].sum() == 0


def test_levels_without_order_are_compared_in_pairs_and_both_are_named():
    frame = study(np.random.default_rng(0), seeds=6)
    frame["model"] = frame["temperature"].map({0.7: "b", 1.0: "c", 1.3: "a"})
    frame["feature_0"] += frame["model"].map({"a": 0, "b": 8, "c": 2})
    effects = main_effects(frame, ["model", "cfg_coef"], FEATURES)
    assert effects["significant"].to_list() == [True] + [False] * 9
    assert effects["change"][0] == pytest.approx(8, abs=1.5)
    assert effects[["shape", "from_level", "to_level"]].iloc[0].to_list() == ["pair", "a", "b"]


def test_intervals_of_the_surest_pair_hold_what_is_true_of_it_for_all_pairs_at_once():
    truth = {"a": 0.0, "b": 0.5, "c": 1.0, "d": 1.5, "e": 2.0}
    rng, held, draws = np.random.default_rng(10), 0, 300
    frame = pd.DataFrame([(p, s) for p in truth for s in range(6)], columns=["prompt", "seed"])
    names = [f"x{number}" for number in range(draws)]
    noise = pd.DataFrame(rng.normal(size=(len(frame), draws)), columns=names)
    frame = frame.join(noise.add(frame["prompt"].map(truth), axis=0))
    for row in main_effects(frame, ["prompt"], names).itertuples():
        held += row.low <= truth[row.to_level] - truth[row.from_level] <= row.high
    assert held / draws >= 0.93


def test_a_design_without_a_grid_has_trends_over_its_points():
    rng = np.random.default_rng(0)
    names = [f"feature_{number}" for number in range(100)]
    points = rng.permuted(np.tile(np.arange(40.0), (2, 1)), axis=1)
    noise = pd.DataFrame(rng.normal(size=(40, len(names))), columns=names)
    frame = noise.assign(temperature=points[0], cfg_coef=points[1], seed=0)
    frame["feature_0"] += np.exp(frame["temperature"] / 10)
    table = trends(frame, PARAMETERS, names)
    assert table["significant"][0]
    assert np.mean(table["p_value"][1:] < ALPHA) <= binom.ppf(0.99, 199, ALPHA) / 199
    (row,) = trends(frame, ["temperature"], ["feature_0"]).itertuples()
    assert 0.7 < row.low < row.rho < row.high
    assert trends(frame.iloc[:9], PARAMETERS, ["feature_0"])["note"][0] == (
        "9 points with a value; at least 10 are needed"
    )
    assert not main_effects(frame, PARAMETERS, ["feature_0"])["significant"].any()
    assert trends(frame, [], names).empty


def test_two_clips_of_each_prompt_are_one_comparison():
    """Less the means of their prompts, the two are mirror images of each other."""
    rng, studies, claimed = np.random.default_rng(0), 300, 0
    for _ in range(studies):
        apart = rng.normal(size=(12, 2))
        values = np.concatenate([apart, -apart])
        frame = pd.DataFrame(values, columns=["feature", "liked"])
        frame["prompt"] = [*"abcdefghijkl"] * 2
        (row,) = trends(frame, ["feature", "prompt"], ["liked"], within="prompt").itertuples()
        claimed += row.significant
    assert claimed <= binom.ppf(0.999, studies, ALPHA)


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
