"""The sentences about a run follow from its data."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from musicgen_lab import InvalidRequest, Sweep
from musicgen_lab.analysis.features import DEFAULT_FEATURES
from musicgen_lab.errors import MusicGenLabWarning
from musicgen_lab.figures.effects import plot_effects
from musicgen_lab.formatting import FieldLabels
from musicgen_lab.report.sentences import effect_sentence, find, inconclusive_sentences
from musicgen_lab.results import Results
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.study_tables import ALPHA, StudyTables, significant
from tests.support.report_runs import make_run, without_measuring
from tests.support.sines import SineBackend
from tests.support.studies import CFG_COEFS, TEMPERATURES
from tests.support.studies import study as study_of

FEATURES = ["spectral_centroid_hz", "rms_dbfs"]
RANK = {name: rank for rank, name in enumerate(DEFAULT_FEATURES)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The pitch follows the temperature, and nothing follows cfg_coef but the tempo."""
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(5)}
    return RunTable.open(make_run(tmp_path_factory.mktemp("study"), **fields))


def test_a_known_effect_is_said_with_its_interval_and_its_ends(study):
    held = significant(StudyTables.of(study, ["spectral_centroid_hz"]).effects)
    assert held[0]["parameter"] == "temperature"
    said = effect_sentence(held[0], LABELS)
    assert said.startswith("Brightness rises with temperature: by ")
    assert " Hz from 0.5 to 1.5 (95% interval " in said and said.endswith(", 5 seeds).")


LABELS = FieldLabels.of(["slow sad piano", "fast drums"])
BASE = {
    "parameter": "temperature", "from_level": 0.3, "to_level": 1.5, "peak": None, "seeds": 4,
    "feature": "loudness_lufs", "shape": "trend", "replicate": "seed",
}  # fmt: skip


def test_a_fall_is_told_as_a_fall_with_rising_bounds_and_the_unit_of_differences():
    fall = BASE | {"change": -1.2, "low": -1.6, "high": -0.8}
    assert effect_sentence(fall, LABELS) == (
        "Loudness falls with temperature: by 1.20 LU from 0.3 to 1.5 (95% interval 0.80 to 1.60, "
        "4 seeds)."
    )


def test_a_hump_is_told_by_its_peak_and_the_contrast_that_was_tested():
    hump = BASE | {"shape": "hump", "peak": 0.9, "change": 4.1, "low": 1.2, "high": 7.0}
    assert effect_sentence(hump, LABELS) == (
        "Loudness changes with temperature and is highest near 0.9: the middle of the range lies "
        "4.1 LU above its ends (95% interval 1.2 to 7.0, 4 seeds)."
    )
    dip = BASE | {"shape": "dip", "peak": 0.9, "change": -4.1, "low": -7.0, "high": -1.2}
    assert "is lowest near 0.9: the middle of the range lies 4.1 LU below its ends" in (
        effect_sentence(dip, LABELS)
    )


def test_a_difference_between_prompts_names_both():
    pair = BASE | {
        "parameter": "prompt", "shape": "pair", "from_level": "slow sad piano",
        "to_level": "fast drums", "change": 3.14, "low": 1.0, "high": 5.2,
    }  # fmt: skip
    assert effect_sentence(pair, LABELS) == (
        "Loudness depends on the prompt: it is 3.1 LU higher with “fast drums” than with “slow sad "
        "piano” (95% interval 1.0 to 5.2, 4 seeds)."
    )


def test_a_difference_from_no_negative_prompt_and_by_a_switch_is_said_in_words():
    pair = BASE | {"shape": "pair", "change": 3.14, "low": 1.0, "high": 5.2}
    negative = {"parameter": "negative_prompt", "from_level": "", "to_level": "drums"}
    assert effect_sentence(pair | negative, LABELS).startswith(
        "Loudness depends on negative_prompt: it is 3.1 LU higher with “drums” than with none ("
    )
    switch = {"parameter": "include_start", "from_level": False, "to_level": True}
    assert effect_sentence(pair | switch, LABELS).startswith(
        "Loudness depends on include_start: it is 3.1 LU higher with include_start than without "
    )


def test_of_a_feature_that_is_yes_or_no_the_share_of_clips_changes():
    row = BASE | {"feature": "is_silent", "change": 0.25, "low": 0.1, "high": 0.4}
    assert effect_sentence(row, LABELS).startswith(
        "The share of silent clips rises with temperature: by 0.25 from 0.3 to 1.5 (95% interval "
    )
    untested = pd.DataFrame([row | {"p_value": 0.4, "significant": False, "note": ""}])
    assert inconclusive_sentences(untested) == [
        "Whether temperature changes the share of silent clips is inconclusive."
    ]


def test_it_tells_what_was_put_in_and_nothing_that_no_seed_varies(tmp_path):
    """The sines' frequency follows the temperature and the seed, and their level cfg_coef alone."""
    sweep = Sweep(prompt="a", temperature=[0.5, 1, 1.5], cfg_coef=[1, 3], seed=range(4), duration=1)
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    findings = find(StudyTables.of(results.table, ["spectral_centroid_hz", "rms_dbfs"]))
    assert [text.partition(":")[0] for text in findings.significant] == [
        "Brightness rises with temperature"
    ]
    assert any("RMS level" in text or "rms" in text.lower() for text in findings.inconclusive)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A 3 x 3 grid of four seeds, for features that are drawn instead of measured."""
    fields = {"temperature": TEMPERATURES, "cfg_coef": CFG_COEFS, "seed": range(4)}
    sweep = Sweep(prompt="a", duration=1, **fields)
    results = sweep.run(SineBackend(), tmp_path_factory.mktemp("grid"), progress=False)
    return without_measuring(results.folder)


def drawn(grid, rng, **options):
    """Return what a report says of the grid if its features are those of a simulated study."""
    simulated = study_of(rng, features=[*DEFAULT_FEATURES], **options)
    asked = ["temperature", "cfg_coef", "seed"]
    assert (simulated[asked] == grid.frame[asked]).all(axis=None)
    frame = grid.frame.assign(**simulated[[*DEFAULT_FEATURES]])
    return find(StudyTables.of(RunTable(grid.run, frame)))


def test_an_interaction_is_said_with_both_parameters_both_ends_and_its_interval(grid):
    def crossed(temperature, cfg_coef):  # cfg_coef adds 80 at 0.7 and takes 160 away at 1.3
        return 100 * (cfg_coef - 3) * (0.9 - temperature)

    said = drawn(grid, np.random.default_rng(1), effects=[("spectral_centroid_hz", crossed)])
    (claim,) = [claim for claim in said.significant if claim.startswith("The effect of")]
    told = re.fullmatch(
        r"The effect of cfg_coef on brightness depends on temperature: from 1 to 5 it is "
        r"\+(?P<at_lowest>[\d.]+) Hz at temperature 0\.7 and −(?P<at_highest>[\d.]+) Hz at 1\.3 "
        r"\(difference −(?P<change>"
        r"[\d.]+) Hz, 95% interval −(?P<low>[\d.]+) to −(?P<high>[\d.]+), 4 seeds\)\.",
        claim,
    )
    assert told, claim
    at_lowest, at_highest, change, low, high = map(float, told.groups())
    assert at_lowest == pytest.approx(80, abs=4) and at_highest == pytest.approx(160, abs=4)
    assert change == pytest.approx(at_lowest + at_highest, abs=1)
    assert high < change < low
    # Two parameters and what they do together, each asked of eight features.
    assert (said.questions, said.about_interactions) == (24, 8)


def test_of_50_simulated_studies_no_more_than_the_stated_rate_say_anything(grid):
    rng = np.random.default_rng(7)
    claims = [drawn(grid, rng).significant for _ in range(50)]
    # What a true rate of 5% would exceed in one of a hundred such tests.
    assert sum(map(bool, claims)) <= binom.ppf(0.99, 50, ALPHA)


def test_effects_that_add_up_are_not_said_to_depend_on_each_other(grid):
    def sums(temperature, cfg_coef):
        return 100 * temperature + 20 * cfg_coef

    rng = np.random.default_rng(3)
    for _ in range(10):
        held = drawn(grid, rng, effects=[("spectral_centroid_hz", sums)]).significant
        assert {claim.partition(":")[0] for claim in held} >= {
            "Brightness rises with temperature",
            "Brightness rises with cfg_coef",
        }
        assert not any(claim.startswith("The effect of") for claim in held)


SHAPES = {
    "a rise": lambda temperature, _: 3 * temperature,
    "a hump": lambda temperature, _: 2.0 * (temperature == 1.0),
    "a step at the last level": lambda temperature, _: 1.5 * (temperature == 1.3),
    "nothing": lambda temperature, _: 0 * temperature,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_table_the_figure_and_the_sentences_of_a_study_agree(grid, shape):
    rng = np.random.default_rng(11)
    for _ in range(6):
        simulated = study_of(rng, features=[*DEFAULT_FEATURES], effects=[("onset_rate_hz", shape)])
        frame = grid.frame.assign(**simulated[[*DEFAULT_FEATURES]])
        results = Results(RunTable(grid.run, frame))
        effects = results.effects().sort_values(
            "feature", key=lambda names: names.map(RANK), kind="stable"
        )
        dots = [
            dot
            for axes in results.plot_effects().figure.axes
            for dot in axes.lines
            if dot.get_marker() in "oD"
        ]
        assert [dot.get_xdata()[0] for dot in dots] == effects["change"].tolist()
        filled = [dot.get_markerfacecolor() != "none" for dot in dots]
        assert filled == effects["significant"].tolist()
        diamonds = [dot.get_marker() == "D" for dot in dots]
        assert diamonds == effects["shape"].isin(["hump", "dip"]).tolist()
        findings = find(StudyTables.of(results.table))
        sentences = [text for text in findings.significant if not text.startswith("The effect of")]
        surest = effects[effects["significant"]].sort_values("p_adjusted", kind="stable")
        assert sentences == [effect_sentence(row, LABELS) for row in surest.to_dict("records")]
        for row in surest.itertuples():
            assert row.low > 0 or row.high < 0
        inconclusive = effects[~effects["significant"]]
        assert bool(findings.inconclusive) == bool(len(inconclusive))


def test_equal_clips_under_two_names_make_no_finding(tmp_path):
    """The sines follow the temperature and cfg_coef alone, so top_k repeats the same clips."""
    sweep = Sweep(prompt="a", top_k=[64, 128, 256], seed=range(4), duration=1)
    with pytest.warns(MusicGenLabWarning, match="bit-identical"):
        table = sweep.run(SineBackend(), tmp_path, progress=False).table
    findings = find(StudyTables.of(table, ["spectral_centroid_hz", "rms_dbfs"]))
    assert findings.significant == []
    assert findings.questions == 0


def test_a_feature_that_no_clip_has_is_told_once(grid):
    frame = grid.frame.assign(onset_rate_hz=np.nan, silence_ratio=0.0)
    table = RunTable(grid.run, frame)
    findings = find(StudyTables.of(table, ["onset_rate_hz", "silence_ratio"]))
    assert findings.inconclusive == [
        "Onset rate has no value in any clip: they may be too short, or silent.",
        "Silence is the same in all clips.",
    ]


def test_parameters_without_a_significant_effect_are_named_as_in_a_sentence():
    rows = [
        {"parameter": parameter, "feature": feature, "p_value": 0.4, "significant": False}
        for parameter in ("prompt", "temperature")
        for feature in FEATURES
    ]
    assert inconclusive_sentences(pd.DataFrame(rows).assign(note="")) == [
        "The prompt has no significant effect on any of the 2 features.",
        "temperature has no significant effect on any of the 2 features.",
    ]


def test_a_random_design_is_told_by_its_trends(tmp_path):
    sweep = Sweep.sample(24, prompt="a", duration=1, temperature=(0.2, 1.8), cfg_coef=(1, 3))
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    said = find(StudyTables.of(results.table, ["spectral_centroid_hz"]))
    assert [claim.partition(" (")[0] for claim in said.significant] == [
        "Brightness rises with temperature: rank correlation 1.00"
    ]


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_take_one_sentence_and_the_way_out_however_much_was_swept(tmp_path, seeds):
    fields = {"temperature": [0.5, 1.5], "cfg_coef": [1, 3], "seed": [*range(seeds)]}
    few = RunTable.open(make_run(tmp_path, **fields))
    findings = find(StudyTables.of(few))
    assert findings.significant == []
    sentence, way_out = findings.inconclusive
    assert way_out.startswith(
        "To see what the parameters change, run the sweep again with more seeds"
    )
    assert sentence == (
        f"Nothing can be concluded: there {'is' if seeds == 1 else 'are'} {seeds} "
        f"seed{'s' * (seeds > 1)} of each setting, and at least 3 are needed."
    )


def test_a_sweep_of_seeds_alone_has_no_effects(tmp_path):
    seeds = RunTable.open(make_run(tmp_path, seed=range(3)))
    assert inconclusive_sentences(StudyTables.of(seeds).effects) == [
        "No parameter was swept, so there is no effect to look for."
    ]
    with pytest.raises(InvalidRequest, match="nothing but the seed was swept"):
        plot_effects(seeds)


def test_study_tables_are_computed_once_for_a_run(study):
    assert StudyTables.of(study, FEATURES) is StudyTables.of(study, list(FEATURES))
    assert StudyTables.of(study, FEATURES).effects is StudyTables.of(study, FEATURES).effects
