"""What is said and drawn of effects follows what is there, and no more."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.text import Text
from scipy.stats import binom

from musicgen_lab import Clip, GenerationRequest, InvalidRequest, Results, Sweep
from musicgen_lab.figures.plots import compare, effects
from musicgen_lab.report.sentences import sentence, what_cannot_be_said
from musicgen_lab.stats.study_tables import (
    ALPHA,
    DEFAULT_FEATURES,
    chosen_features,
    effects_of,
    strongest,
    what_stands_out,
)
from tests.support.report_runs import beats, make_run
from tests.support.sines import PROVENANCE, SineBackend
from tests.support.studies import CFG_COEFS, TEMPERATURES
from tests.support.studies import study as study_of

FEATURES = ["spectral_centroid_hz", "rms_dbfs"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The pitch follows the temperature, and nothing follows cfg_coef but the tempo."""
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(5)}
    return Results.open(make_run(tmp_path_factory.mktemp("study"), **fields))


def test_a_known_effect_is_said_with_its_interval_and_its_ends(study):
    held = strongest(effects_of(study, ["spectral_centroid_hz"]))
    assert held[0]["parameter"] == "temperature"
    said = sentence(held[0])
    assert said.startswith("Spectral centroid rises with temperature: by ")
    assert " Hz from 0.5 to 1.5 (95% interval " in said and said.endswith(", 5 seeds).")


def test_a_fall_is_said_as_a_fall_with_rising_bounds():
    said = sentence(
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
    said = what_stands_out(results, ["spectral_centroid_hz", "rms_dbfs"])
    assert sorted(claim.partition(":")[0] for claim in said.held) == [
        "RMS level rises with cfg_coef",
        "Spectral centroid rises with temperature",
    ]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A 3 x 3 grid of four seeds, for features that are drawn instead of measured."""
    fields = {"temperature": TEMPERATURES, "cfg_coef": CFG_COEFS, "seed": range(4)}
    sweep = Sweep(prompt="a", duration=1, **fields)
    return sweep.run(SineBackend(), tmp_path_factory.mktemp("grid"), progress=False)


def drawn(grid, rng, **options):
    """Return what a report says of the grid if its features are those of a simulated study."""
    simulated = study_of(rng, features=[*DEFAULT_FEATURES], **options)
    asked = ["temperature", "cfg_coef", "seed"]
    assert (simulated[asked] == grid.frame[asked]).all(axis=None)
    grid.frame = grid.frame.assign(**simulated[[*DEFAULT_FEATURES]])
    return what_stands_out(grid)


def test_an_interaction_is_said_with_both_parameters_both_ends_and_its_interval(grid):
    def crossed(temperature, cfg_coef):  # cfg_coef adds 80 at 0.7 and takes 160 away at 1.3
        return 100 * (cfg_coef - 3) * (0.9 - temperature)

    said = drawn(grid, np.random.default_rng(1), effects=[("spectral_centroid_hz", crossed)])
    (claim,) = [claim for claim in said.held if claim.startswith("Raising")]
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
    claims = [drawn(grid, rng).held for _ in range(50)]
    # What a true rate of 5% would exceed in one of a hundred such tests.
    assert sum(map(bool, claims)) <= binom.ppf(0.99, 50, ALPHA)


def test_effects_that_add_up_are_not_said_to_depend_on_each_other(grid):
    def sums(temperature, cfg_coef):
        return 100 * temperature + 20 * cfg_coef

    rng = np.random.default_rng(3)
    for _ in range(10):
        held = drawn(grid, rng, effects=[("spectral_centroid_hz", sums)]).held
        assert {claim.partition(":")[0] for claim in held} >= {
            "Spectral centroid rises with temperature",
            "Spectral centroid rises with cfg_coef",
        }
        assert not any(claim.startswith("Raising") for claim in held)


def test_a_random_design_is_told_by_its_trends(tmp_path):
    sweep = Sweep.sample(24, prompt="a", duration=1, temperature=(0.2, 1.8), cfg_coef=(1, 3))
    results = sweep.run(SineBackend(), tmp_path, progress=False)
    said = what_stands_out(results, ["spectral_centroid_hz"])
    assert [claim.partition(" (")[0] for claim in said.held] == [
        "Spectral centroid rises with temperature: rank correlation 1.00"
    ]


def test_the_map_puts_like_clips_together_and_says_how_much_it_shows(study):
    drawing = study.map("cfg_coef", [*FEATURES, "onset_rate_hz"])
    axes = drawing.figure.axes[0]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 30
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "3"]
    assert "% of the variance" in axes.get_xlabel()
    assert "cfg_coef 1 around" in drawing.alt
    with pytest.raises(InvalidRequest, match="colour_by must be a swept field, got 'top_k'"):
        study.map("top_k")


def test_two_seeds_are_too_few_and_it_says_so(tmp_path):
    few = Results.open(make_run(tmp_path, temperature=[0.5, 1.5], seed=[0, 1]))
    table = effects_of(few, FEATURES)
    assert strongest(table) == []
    (said,) = what_cannot_be_said(table, FEATURES)
    assert said.startswith("Nothing can be concluded about temperature: 2 seeds")


def test_a_sweep_of_seeds_alone_has_no_effects(tmp_path):
    seeds = Results.open(make_run(tmp_path, seed=range(3)))
    assert what_cannot_be_said(effects_of(seeds), FEATURES) == [
        "Nothing but the seed was swept, so there is no effect to look for."
    ]
    with pytest.raises(InvalidRequest, match="nothing but the seed was swept"):
        effects(seeds)


def test_an_effect_that_holds_is_drawn_filled_with_its_interval(study):
    drawing = effects(study, ["spectral_centroid_hz"])
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
    drawing = compare(*(study.clip(k) for k in key), FEATURES)
    a, b, difference = drawing.figure.axes[0], drawing.figure.axes[2], drawing.figure.axes[4]
    assert a.images[0].get_clim() == b.images[0].get_clim()
    assert difference.images[0].get_clim() == (-40, 40)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert "A: temperature 0.5" in texts and "B: temperature 1.5" in texts
    assert "Spectral centroid (Hz)" in texts
    assert "Spectral centroid (Hz): " in drawing.alt


def test_a_clip_compared_with_itself_shows_no_difference(study):
    clip = study.clip(study.frame.key[0])
    drawing = compare(clip, clip, FEATURES)
    assert abs(drawing.figure.axes[4].images[0].get_array()).max() == 0


def test_clips_of_other_rates_and_lengths_are_compared_where_both_sound():
    a, b = (
        beats(GenerationRequest(prompt="a", duration=duration, seed=0), sample_rate=rate)
        for duration, rate in ((1, 16_000), (2, 32_000))
    )
    drawing = compare(a, b, FEATURES)
    difference = drawing.figure.axes[4]
    assert difference.get_xlim() == (0, 2)
    assert difference.images[0].get_extent()[1] == pytest.approx(1, abs=0.05)
    middle = difference.images[0].get_array()[:, 20:40]
    assert abs(float(middle.mean())) < 6  # the same beats, but for what the rates cannot share


def test_a_clip_without_samples_is_said_to_have_nothing_to_draw():
    request = GenerationRequest(prompt="a", duration=1, seed=0)
    nothing = Clip(request, np.zeros((1, 0), np.float32), 16_000, PROVENANCE, 0.1)
    drawing = compare(beats(request), nothing, FEATURES)
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert texts.count("nothing to draw") == 2
    assert "–" in texts
