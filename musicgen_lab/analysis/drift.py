"""How a clip of over 30 s changes from window to window, and its drift from the first to the last.

A model makes 30 s at a time. A longer clip is made in windows: the first is its first 30 s, and
each later one adds what follows the one before it, up to `extend_stride` seconds. Where one begins
to add is a seam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from musicgen_lab.analysis.distances import mel_cepstral_distances, sound_signature
from musicgen_lab.analysis.levels import (
    LOUDNESS_BLOCK_S,
    LOUDNESS_GATE_LUFS,
    is_silent,
    loudness_lufs,
)
from musicgen_lab.analysis.registry import REGISTERED, RunFeature
from musicgen_lab.analysis.rhythm import tempo_bpm
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.analysis.timbre import spectral_centroid_hz
from musicgen_lab.limits import WINDOW_S

WINDOWS_VERSION = 2
"""Raised when the measures of windows change, so that stored ones are measured again."""

SHORTEST_S = 5.0  # a last window that adds less is measured together with the one before

WindowValues: TypeAlias = Mapping[str, float]
"""What is measured of a window, by name, and its `start_s` and `end_s` in the sound."""


@dataclass(frozen=True)
class WindowMeasure:
    """A measure of a window: its name, and its label and unit for axes."""

    name: str
    label: str
    unit: str


START_DISTANCE = "start_distance_db"
WINDOW_MEASURES = (
    *(
        WindowMeasure(name, REGISTERED[name].label, REGISTERED[name].unit)
        for name in (loudness_lufs.__name__, spectral_centroid_hz.__name__, tempo_bpm.__name__)
    ),
    WindowMeasure(START_DISTANCE, "Distance from the first window", "dB"),
)
"""What is measured of every window: features of a sound, and how far it is from the first window,
as `musicgen_lab.analysis.distances.mel_cepstral_distances`: 0 has the same timbre."""


def seam_times_s(duration_s: float, extend_stride_s: float) -> list[float]:
    """Return when each window after the first begins to add to a clip, in seconds.

    Parameters
    ----------
    duration_s : float
        Of the request.
    extend_stride_s : float > 0
        Seconds by which a window moves on.

    Examples
    --------
    >>> seam_times_s(60, 18)
    [30.0, 48.0]
    """
    return [float(at_s) for at_s in np.arange(WINDOW_S, duration_s, extend_stride_s)]


def measure_windows(
    samples: Array, sample_rate: int, seams_s: Sequence[float]
) -> list[dict[str, float]]:
    """Measure each window of a clip.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Full scale is 1.0.
    sample_rate : int
        In Hz.
    seams_s : sequence of float
        Where windows begin to add, in seconds from the start of the sound; rising.

    Returns
    -------
    list of dict of str to float
        Its `start_s` and `end_s`, and `WINDOW_MEASURES`; empty for samples that are not finite. A
        silent window has the lowest loudness there is, -70 LUFS, and NaN for the others. The tempo
        is doubled or halved until it is nearest to the first window's, since half or double of a
        tempo is often named in its place.
    """
    if samples.size == 0 or not np.all(np.isfinite(samples)):
        return []
    end_s = samples.shape[1] / sample_rate
    edges_s = [0.0, *(at_s for at_s in seams_s if at_s <= end_s - SHORTEST_S), end_s]
    cuts = [round(at_s * sample_rate) for at_s in edges_s]
    sounds = [Sound(samples[:, a:b], sample_rate) for a, b in pairwise(cuts)]
    distances_db = mel_cepstral_distances(np.array([sound_signature(one) for one in sounds]))[0]
    windows: list[dict[str, float]] = []
    for index, sound in enumerate(sounds):
        silent = is_silent(sound)
        loudness = loudness_lufs(sound)
        if np.isnan(loudness) and sound.duration_s >= LOUDNESS_BLOCK_S:
            loudness = LOUDNESS_GATE_LUFS
        tempo = np.nan if silent else tempo_bpm(sound)
        windows.append(
            {
                "start_s": edges_s[index],
                "end_s": edges_s[index + 1],
                "loudness_lufs": loudness,
                "spectral_centroid_hz": np.nan if silent else spectral_centroid_hz(sound),
                "tempo_bpm": _nearest_octave(tempo, windows[0]["tempo_bpm"]) if windows else tempo,
                START_DISTANCE: float(distances_db[index]),
            }
        )
    return windows


def _nearest_octave(tempo: float, reference: float) -> float:
    """Return a tempo times the power of two that brings it nearest to another one."""
    if not np.isfinite(tempo) or not np.isfinite(reference):
        return tempo
    return float(tempo * 2.0 ** round(np.log2(reference / tempo)))


Drift: TypeAlias = Callable[[Sequence[WindowValues]], float]


@dataclass(frozen=True, kw_only=True)
class DriftFeature(RunFeature):
    """A drift feature.

    Attributes
    ----------
    measure : callable
        From the windows of a clip to the number.
    """

    measure: Drift


DRIFT_FEATURES: dict[str, DriftFeature] = {}
"""Every drift feature by name. Clips of up to 30 s, which have one window, have NaN."""


def _drift(label: str, unit: str) -> Callable[[Drift], Drift]:
    def register(drift: Drift) -> Drift:
        name, words = drift.__name__, getdoc(drift) or ""
        DRIFT_FEATURES[name] = DriftFeature(
            name, label, unit, words.split("\n\n")[0], measure=drift
        )
        return drift

    return register


@_drift("Loudness drift", "LU")
def loudness_drift_lu(windows: Sequence[WindowValues]) -> float:
    """Loudness of the last window of a clip of over 30 s less that of its first.

    Known truth: music of two minutes that is turned down by 6 dB at a seam has -6; one that falls
    silent has its first window's distance from -70 LUFS, the lowest loudness there is.

    Limits: a level that sinks and comes back has none: see the windows in between.
    """
    return windows[-1]["loudness_lufs"] - windows[0]["loudness_lufs"]


@_drift("Brightness drift", "Hz")
def brightness_drift_hz(windows: Sequence[WindowValues]) -> float:
    """Brightness of the last window of a clip of over 30 s less that of its first.

    Known truth: music that is low-passed from a seam on falls, and music that stays has under 2% of
    its brightness.

    Limits: other notes change the brightness, too. NaN where either window is silent.
    """
    return windows[-1]["spectral_centroid_hz"] - windows[0]["spectral_centroid_hz"]


@_drift("Tempo drift", "BPM")
def tempo_drift_bpm(windows: Sequence[WindowValues]) -> float:
    """Tempo of the last window of a clip of over 30 s less that of its first.

    The last one's is doubled or halved until it is nearest to the first one's.

    Known truth: a piece played at 100 BPM and from a seam on at 125 has 25.

    Limits: a tempo that really doubles has no drift. NaN where either window has no beat.
    """
    return windows[-1]["tempo_bpm"] - windows[0]["tempo_bpm"]


@_drift("Timbre drift", "dB")
def timbre_drift_db(windows: Sequence[WindowValues]) -> float:
    """Mel-cepstral distance of the last window of a clip of over 30 s from its first.

    0 has the same colour of sound, whatever its level; `results.distances()` measures the same
    between clips, which is a scale to judge it by.

    Known truth: music that stays has under 1 dB, music that another instrument takes over has more
    than 5.

    Limits: other chords count a little. NaN where either window is silent.
    """
    return windows[-1][START_DISTANCE]


def drifts(windows: Sequence[WindowValues]) -> dict[str, float]:
    """Return every drift feature of a clip by name, NaN where it has only one window."""
    return {
        name: feature.measure(windows) if len(windows) > 1 else float("nan")
        for name, feature in DRIFT_FEATURES.items()
    }
