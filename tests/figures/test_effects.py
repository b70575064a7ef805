"""What is said and drawn of effects follows what is there, and no more."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.text import Text
from scipy.stats import binom

from musicgen_lab import Clip, GenerationRequest, InvalidRequest, Sweep
from musicgen_lab.analysis.features import DEFAULT_FEATURES, chosen_features
from musicgen_lab.analysis.features import FEATURES as FEATURES_BY_NAME
from musicgen_lab.figures.clip_map import plot_map
from musicgen_lab.figures.effects import plot_effects
from musicgen_lab.figures.pair import plot_pair
from musicgen_lab.report.sentences import effect_sentence, find, inconclusive_sentences
from musicgen_lab.results import Results
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.study_tables import ALPHA, StudyTables, conclusive
from tests.support.report_runs import beats, make_run
from tests.support.sines import PROVENANCE, SineBackend
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
    held = conclusive(StudyTables.of(study, ["spectral_centroid_hz"]).effects)
    assert held[0]["parameter"] == "temperature"
    said = effect_sentence(held[0])
    assert said.startswith("Spectral centroid rises with temperature: by ")
    assert " Hz from 0.5 to 1.5 (95% interval " in said and said.endswith(", 5 seeds).")


def test_a_fall_is_said_as_a_fall_with_rising_bounds():
    said = effect_sentence(
        {
            "parameter": "cfg_coef", "lowest": 1.0, "highest": 5.0, "seeds": 4,
            "feature": "onset_rate_hz", "change": -1.2, "low": -1.6, "high": -0.8,
        }
    )  # fmt: skip
    assert said == (
        "Onset rate falls with cfg_coef: by 1.20 Hz from 1 to 5 (95% interval 0.80 to 1.60, "
        "4 seeds)."
    )


def test_it_says_what_was_put_in_and_nothing_else(tmp_path):
    """The sines' frequency follows the temperature alone, and their level cfg_coef alone."""
    sweep = Sweep(prompt="a", temperature=[0.5, 1, 1.5], cfg_coef=[1, 3], seed=range(4), duration=1)
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    said = find(StudyTables.of(results.table, ["spectral_centroid_hz", "rms_dbfs"]))
    assert sorted(claim.partition(":")[0] for claim in said.significant) == [
        "RMS level rises with cfg_coef",
        "Spectral centroid rises with temperature",
    ]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A 3 x 3 grid of four seeds, for features that are drawn instead of measured."""
    fields = {"temperature": TEMPERATURES, "cfg_coef": CFG_COEFS, "seed": range(4)}
    sweep = Sweep(prompt="a", duration=1, **fields)
    return sweep.run(SineBackend(), tmp_path_factory.mktemp("grid"), progress=False).table


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
    (claim,) = [claim for claim in said.significant if claim.startswith("Raising")]
    told = re.fullmatch(
        r"Raising cfg_coef from 1 to 5 moves spectral centroid by \+(?P<at_lowest>[\d.]+) Hz at "
        r"temperature 0\.7 but by −(?P<at_highest>[\d.]+) Hz at 1\.3 \(difference −(?P<change>"
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
            "Spectral centroid rises with temperature",
            "Spectral centroid rises with cfg_coef",
        }
        assert not any(claim.startswith("Raising") for claim in held)


def test_the_table_the_figure_and_the_sentences_of_a_study_agree(grid):
    """A tenth of these claims is significant by itself and not among all that is asked."""
    rng = np.random.default_rng(11)
    open_dots = 0
    for _ in range(10):
        simulated = study_of(
            rng,
            features=[*DEFAULT_FEATURES],
            effects=[("onset_rate_hz", lambda temperature, _: 5 * temperature)],
        )
        frame = grid.frame.assign(**simulated[[*DEFAULT_FEATURES]])
        results = Results(RunTable(grid.run, frame))
        effects = results.effects()
        drawn = results.plot_effects().figure.axes
        filled = [
            dot.get_markerfacecolor() != "none"
            for axes in drawn
            for dot in axes.lines
            if dot.get_marker() == "o"
        ]
        by_feature = effects.sort_values("feature", key=lambda names: names.map(RANK))
        assert filled == by_feature["conclusive"].tolist()
        significant = find(StudyTables.of(results.table)).significant
        told = [claim for claim in significant if not claim.startswith("Raising")]
        assert len(told) == effects["conclusive"].sum()
        open_dots += len(filled) - sum(filled)
    assert open_dots > 0


def test_a_difference_of_levels_is_in_decibels_and_one_of_loudness_in_loudness_units():
    units = {name: FEATURES_BY_NAME[name].difference_unit for name in FEATURES_BY_NAME}
    assert (units["loudness_lufs"], units["rms_dbfs"], units["onset_rate_hz"]) == ("LU", "dB", "Hz")


def test_study_tables_are_computed_once_for_a_run(study):
    assert StudyTables.of(study, FEATURES) is StudyTables.of(study, list(FEATURES))
    assert StudyTables.of(study, FEATURES).effects is StudyTables.of(study, FEATURES).effects


def test_a_random_design_is_told_by_its_trends(tmp_path):
    sweep = Sweep.sample(24, prompt="a", duration=1, temperature=(0.2, 1.8), cfg_coef=(1, 3))
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    said = find(StudyTables.of(results.table, ["spectral_centroid_hz"]))
    assert [claim.partition(" (")[0] for claim in said.significant] == [
        "Spectral centroid rises with temperature: rank correlation 1.00"
    ]


def test_the_map_puts_like_clips_together_and_says_how_much_it_shows(study):
    drawing = plot_map(study, "cfg_coef", [*FEATURES, "onset_rate_hz"])
    axes = drawing.figure.axes[0]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 30
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "3"]
    assert "% of the variance" in axes.get_xlabel()
    assert "cfg_coef 1 around" in drawing.alt
    with pytest.raises(InvalidRequest, match="colour_by must be a swept field, got 'top_k'"):
        plot_map(study, "top_k")


def test_two_seeds_are_too_few_and_it_says_so(tmp_path):
    few = RunTable.open(make_run(tmp_path, temperature=[0.5, 1.5], seed=[0, 1]))
    table = StudyTables.of(few, FEATURES).effects
    assert conclusive(table) == []
    (said,) = inconclusive_sentences(table, FEATURES)
    assert said.startswith("Nothing can be concluded about temperature: 2 seeds")


def test_a_sweep_of_seeds_alone_has_no_effects(tmp_path):
    seeds = RunTable.open(make_run(tmp_path, seed=range(3)))
    assert inconclusive_sentences(StudyTables.of(seeds).effects, FEATURES) == [
        "Nothing but the seed was swept, so there is no effect to look for."
    ]
    with pytest.raises(InvalidRequest, match="nothing but the seed was swept"):
        plot_effects(seeds)


def test_an_effect_that_holds_is_drawn_filled_with_its_interval(study):
    drawing = plot_effects(study, ["spectral_centroid_hz"])
    (axes,) = drawing.figure.axes
    texts = {text.get_text() for text in drawing.figure.findobj(Text)}
    assert {"Spectral centroid", "Hz", "temperature\n0.5 to 1.5"} <= texts
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert dots[0].get_markerfacecolor() == dots[0].get_color()
    assert dots[1].get_markerfacecolor() == "none"  # nothing holds: the paper shows through
    assert axes.get_facecolor()[3] == 0
    assert drawing.alt.startswith("Effects with 95% intervals over seeds. temperature on spectral")


def test_features_that_are_not_known_are_refused():
    with pytest.raises(InvalidRequest, match="unknown feature 'loudnes'; the features are"):
        chosen_features(["loudnes"])


def test_two_clips_are_compared_on_one_scale_with_their_difference(study):
    frame = study.frame
    key = [frame.key[(frame.temperature == t) & (frame.seed == 0)].iloc[0] for t in (0.5, 1.5)]
    drawing = plot_pair(*(study.clip(k) for k in key), FEATURES)
    a, b, difference = drawing.figure.axes[0], drawing.figure.axes[2], drawing.figure.axes[4]
    assert a.images[0].get_clim() == b.images[0].get_clim()
    assert difference.images[0].get_clim() == (-40, 40)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert "A: temperature 0.5" in texts and "B: temperature 1.5" in texts
    assert "Spectral centroid (Hz)" in texts
    assert "Spectral centroid (Hz): " in drawing.alt


def test_a_clip_compared_with_itself_shows_no_difference(study):
    clip = study.clip(study.frame.key[0])
    drawing = plot_pair(clip, clip, FEATURES)
    assert abs(drawing.figure.axes[4].images[0].get_array()).max() == 0


def test_clips_of_other_rates_and_lengths_are_compared_where_both_sound():
    a, b = (
        beats(GenerationRequest(prompt="a", duration=duration, seed=0), sample_rate=rate)
        for duration, rate in ((1, 16_000), (2, 32_000))
    )
    drawing = plot_pair(a, b, FEATURES)
    difference = drawing.figure.axes[4]
    assert difference.get_xlim() == (0, 2)
    assert difference.images[0].get_extent()[1] == pytest.approx(1, abs=0.05)
    middle = difference.images[0].get_array()[:, 20:40]
    assert abs(float(middle.mean())) < 6  # the same beats, but for what the rates cannot share


def test_a_clip_without_samples_is_said_to_have_nothing_to_draw():
    request = GenerationRequest(prompt="a", duration=1, seed=0)
    nothing = Clip(request, np.zeros((1, 0), np.float32), 16_000, PROVENANCE, 0.1)
    drawing = plot_pair(beats(request), nothing, FEATURES)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert texts.count("nothing to draw") == 2
    assert "–" in texts
