"""Windows of long clips are measured where they join, on music of known drift."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musicgen_lab.analysis.drift import drifts, measure_windows, seam_times_s
from scripts.feature_truth import PAGE, SAMPLE_RATE, drift_sections, steady_music


def drifts_of(*parts):
    """Return the drifts of a clip of two windows, 30 s and 18 s."""
    samples = np.concatenate(parts)[np.newaxis].astype(np.float32)
    return drifts(measure_windows(samples, SAMPLE_RATE, seam_times_s(48, 18)))


@pytest.fixture(scope="module")
def first_window():
    return steady_music(30)


def test_windows_join_after_30_s_and_then_once_in_every_stride():
    assert seam_times_s(30, 18) == []
    assert seam_times_s(66, 18) == [30, 48]
    assert seam_times_s(66.5, 12) == [30, 42, 54, 66]


def test_music_of_two_minutes_that_is_turned_down_at_a_seam_is_quieter_from_that_window_on():
    samples = steady_music(120)[np.newaxis].astype(np.float32)
    samples[:, 66 * SAMPLE_RATE :] *= 10 ** (-6 / 20)
    windows = measure_windows(samples, SAMPLE_RATE, seam_times_s(120, 18))
    assert [window["start_s"] for window in windows] == [0, 30, 48, 66, 84, 102]
    assert windows[-1]["end_s"] == 120
    change = [window["loudness_lufs"] - windows[0]["loudness_lufs"] for window in windows]
    assert change == pytest.approx([0, 0, 0, -6, -6, -6], abs=0.1)
    drift = drifts(windows)
    assert drift["loudness_drift_lu"] == pytest.approx(-6, abs=0.1)
    assert abs(drift["brightness_drift_hz"]) < 0.02 * windows[0]["spectral_centroid_hz"]
    assert drift["tempo_drift_bpm"] == pytest.approx(0, abs=1)
    assert drift["timbre_drift_db"] < 1


def test_another_tempo_is_measured_as_the_difference(first_window):
    drift = drifts_of(first_window, steady_music(18, tempo_bpm=125))
    assert drift["tempo_drift_bpm"] == pytest.approx(25, abs=2)


def test_another_instrument_changes_the_timbre(first_window):
    assert drifts_of(first_window, steady_music(18, instrument="flute"))["timbre_drift_db"] > 5


def test_falling_silent_is_a_drift_to_the_lowest_loudness_and_to_nothing_else(first_window):
    drift = drifts_of(first_window, np.zeros(18 * SAMPLE_RATE))
    assert drift["loudness_drift_lu"] < -45
    assert math.isnan(drift["timbre_drift_db"]) and math.isnan(drift["tempo_drift_bpm"])


def test_a_last_window_that_adds_next_to_nothing_is_measured_with_the_one_before(first_window):
    samples = np.concatenate([first_window, first_window[: 2 * SAMPLE_RATE]])[np.newaxis]
    (window,) = measure_windows(samples, SAMPLE_RATE, seam_times_s(32, 18))
    assert (window["start_s"], window["end_s"]) == (0, 32)
    assert all(math.isnan(drift) for drift in drifts([window]).values())


def test_samples_that_are_not_finite_have_no_windows():
    assert measure_windows(np.full((1, 40_000), np.nan), 1000, [30]) == []


def test_the_documentation_has_every_drift_feature():
    assert drift_sections() in PAGE.read_text(encoding="utf-8"), "run scripts/feature_truth.py"
