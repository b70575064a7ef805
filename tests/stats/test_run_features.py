"""Diversity over seeds is studied like any other feature."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lab.results import Results
from musicgen_lab.stats.run_features import seed_diversity
from tests.support.report_runs import make_run


def test_contributions_have_the_mean_distance_of_two_clips_as_their_mean():
    rng = np.random.default_rng(0)
    places, cell = rng.normal(size=(9, 4)), np.repeat([0, 1], [5, 4])
    distances = np.linalg.norm(places[:, np.newaxis] - places, axis=-1)
    values = seed_diversity(distances, cell)
    for number in (0, 1):
        rows = np.flatnonzero(cell == number)
        pairs = distances[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
        assert values[rows].mean() == pytest.approx(pairs.mean())


def test_the_interval_of_a_diversity_holds_it_as_often_as_it_says():
    """The points are uniform on a line, whose mean distance is a third of its length."""
    rng, n, held = np.random.default_rng(1), 8, 0
    for _ in range(400):
        places = rng.random(n)
        values = seed_diversity(np.abs(places[:, np.newaxis] - places), np.zeros(n))
        half = 2.365 * values.std(ddof=1) / np.sqrt(n)  # Student's, 7 degrees of freedom
        held += abs(values.mean() - 1 / 3) <= half
    assert held / 400 == pytest.approx(0.95, abs=0.04)


def test_clips_without_two_others_to_compare_have_no_diversity():
    distances = np.zeros((5, 5))
    distances[2] = distances[:, 2] = np.nan  # silent
    values = seed_diversity(distances, np.array([0, 0, 0, 1, 1]))
    assert np.isnan(values).all()


def test_silent_and_failed_clips_take_nothing_from_the_diversity_of_the_others(tmp_path):
    run = make_run(tmp_path, silent=[0], failed=[6], temperature=[0.5, 1.5], seed=range(5))
    results = Results.open(run)
    summary = results.summary("diversity_db")
    assert summary["n"].to_list() == [4, 4]
    assert summary["mean"].to_numpy() == pytest.approx(
        results.diversity()["mel_cepstral_db"].to_numpy()
    )


def test_diversity_can_be_asked_for_in_tables_and_figures_alike(tmp_path):
    fields = {"temperature": [0.5, 1.0, 1.5], "cfg_coef": [1, 3], "seed": range(4)}
    results = Results.open(make_run(tmp_path, **fields))
    effects = results.effects(["diversity_db"])
    summary = results.summary("diversity_db")
    assert effects["feature"].tolist() == ["diversity_db", "diversity_db"]
    assert effects["clips"].tolist() == [24, 24]
    assert summary["mean"].to_numpy() == pytest.approx(
        results.diversity()["mel_cepstral_db"].to_numpy()
    )
    assert (summary["low"] < summary["high"]).all()
    assert "Heatmap of diversity over seeds in dB" in results.plot_heatmap("diversity_db").alt
    assert "diversity over seeds" in results.plot_effects(["diversity_db"]).alt
