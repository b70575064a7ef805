"""The features of a clip: their names, units and meanings, and `measure`, which gives them all.

Everything is measured on the raw samples: nothing is normalised, resampled or mixed down. What a
number cannot say is NaN: silence has no spectral centroid and no onset rate, and digital silence
has no level either. The methods and their sources are in the modules that measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from musicgen_lab.analysis import levels, loudness, pitch, rhythm, structure, timbre
from musicgen_lab.analysis.spectrogram import Array, mel_from_power
from musicgen_lab.errors import InvalidRequest

FEATURES_VERSION = 2
"""Raised when a feature's numbers change, so that stored ones are measured again."""


class Feature(NamedTuple):
    """What a feature is: its name for people, its unit, and one sentence on how it is measured."""

    label: str
    unit: str
    description: str
    kind: Literal["number", "yes or no", "text"] = "number"

    @property
    def difference_unit(self) -> str:
        """The unit of a difference between two values: LU for LUFS, dB for dBFS."""
        return {"LUFS": "LU", "dBFS": "dB"}.get(self.unit, self.unit)


FEATURES: Mapping[str, Feature] = MappingProxyType(
    {
        "loudness_lufs": Feature(
            "Loudness",
            "LUFS",
            "Integrated loudness as of ITU-R BS.1770-4: frequencies weighted as heard, pauses left "
            "out.",
        ),
        "rms_dbfs": Feature(
            "RMS level",
            "dBFS",
            "Root mean square over all samples and channels, re full scale (1.0); a sine of "
            "amplitude 1 has -3.",
        ),
        "peak_dbfs": Feature(
            "Peak level",
            "dBFS",
            "Largest absolute sample of any channel, re full scale; above 0 where players clip.",
        ),
        "clipping_share": Feature(
            "Clipping", "0 to 1", "Share of the samples that are at full scale or beyond."
        ),
        "silence_ratio": Feature(
            "Silence ratio",
            "0 to 1",
            "Share of the clip's 50 ms frames whose RMS level is under -60 dBFS.",
        ),
        "is_silent": Feature(
            "Silent",
            "yes or no",
            "Whether every frame is silent, so that nothing is to be heard.",
            "yes or no",
        ),
        "spectral_centroid_hz": Feature(
            "Spectral centroid",
            "Hz",
            "Magnitude-weighted mean frequency, averaged over the frames that are not silent: "
            "brightness.",
        ),
        "spectral_bandwidth_hz": Feature(
            "Spectral bandwidth",
            "Hz",
            "Magnitude-weighted standard deviation of frequency around the centroid.",
        ),
        "spectral_rolloff_hz": Feature(
            "Spectral rolloff", "Hz", "Frequency under which 85% of the magnitude lies."
        ),
        "spectral_flatness": Feature(
            "Spectral flatness",
            "0 to 1",
            "Geometric over arithmetic mean of the power spectrum: 0 a tone, 0.56 white noise.",
        ),
        "spectral_contrast_db": Feature(
            "Spectral contrast",
            "dB",
            "How far the peaks stand above the valleys of the spectrum, averaged over octaves.",
        ),
        "spectral_entropy": Feature(
            "Spectral entropy",
            "0 to 1",
            "How evenly the power is spread over frequency: 0 a single bin, 1 all alike.",
        ),
        "zero_crossing_rate_hz": Feature(
            "Zero crossings", "Hz", "Changes of sign per second; a sine has twice its frequency."
        ),
        "harmonic_ratio": Feature(
            "Harmonic share",
            "0 to 1",
            "Share of the power in sustained tones rather than in clicks (median filtering).",
        ),
        "onset_rate_hz": Feature(
            "Onset rate",
            "Hz",
            "Attacks per second: sudden rises of level across the mel bands.",
        ),
        "tempo_bpm": Feature(
            "Tempo",
            "BPM",
            "Period after which attacks come again, 30 to 300, the nearer to 120 where multiples "
            "fit alike.",
        ),
        "beat_strength": Feature(
            "Beat strength",
            "0 to 1",
            "Correlation of the attacks with those one beat later; under 0.2 there is no tempo.",
        ),
        "pitch_class_entropy": Feature(
            "Pitch class entropy",
            "0 to 1",
            "How evenly the power is spread over the twelve pitch classes: 0 a single one, 1 all "
            "alike.",
        ),
        "key_estimate": Feature(
            "Key",
            "name",
            "The major or minor key whose profile fits the pitch classes best.",
            "text",
        ),
        "key_clarity": Feature(
            "Key clarity",
            "-1 to 1",
            "Correlation of the pitch classes with the profile of that key.",
        ),
        "self_similarity": Feature(
            "Self-similarity",
            "0 to 1",
            "How much the clip repeats itself: correlation of its spectrogram with itself, some "
            "time later.",
        ),
        "repeat_lag_s": Feature(
            "Repeats after", "s", "The time after which it repeats itself most, from 0.5 s on."
        ),
        "level_change_db": Feature(
            "Level change",
            "dB",
            "RMS level of the last quarter less that of the first, both at least -60 dBFS.",
        ),
        "timbre_change_db": Feature(
            "Timbre change",
            "dB",
            "Root mean square difference of the mel spectra of the last and the first quarter, "
            "level taken off.",
        ),
        "silent_end_s": Feature(
            "Silent end", "s", "How long the clip is silent at its end, in steps of 50 ms."
        ),
    }
)
"""Every feature by its column name, in the order of the columns."""

NUMBERS = tuple(name for name, feature in FEATURES.items() if feature.kind == "number")
"""The features that are numbers, and can be averaged and compared."""

DEFAULT_FEATURES = (
    "loudness_lufs",
    "spectral_centroid_hz",
    "onset_rate_hz",
    "silence_ratio",
    "spectral_flatness",
    "harmonic_ratio",
    "pitch_class_entropy",
    "self_similarity",
)
"""What a study looks at unless told otherwise: few, as each one more makes all less certain."""


def chosen_features(features: Iterable[str] | None = None) -> list[str]:
    """Return the names of the features to look at.

    Parameters
    ----------
    features : str or iterable of str, optional
        One or several, also as text with commas; `DEFAULT_FEATURES` if not given.

    Raises
    ------
    InvalidRequest
        When one is unknown, or none is given.
    """
    if features is None:
        return list(DEFAULT_FEATURES)
    if isinstance(features, str):
        features = [name.strip() for name in features.split(",")]
    chosen = list(dict.fromkeys(features))
    for name in chosen:
        if name not in FEATURES:
            raise InvalidRequest(
                f"unknown feature {name!r}; the features are {', '.join(FEATURES)}",
                field="features",
                value=name,
            )
    if not chosen:
        raise InvalidRequest("give at least one feature", field="features")
    return chosen


def numeric_features(features: Iterable[str]) -> list[str]:
    """Return the names of the features to average.

    Raises
    ------
    InvalidRequest
        As `chosen_features`, and when one is a text and has no mean.
    """
    chosen = chosen_features(features)
    for name in chosen:
        if FEATURES[name].kind == "text":
            raise InvalidRequest(
                f"{name} is a {FEATURES[name].unit} and has no mean: count its values in the frame",
                field="features",
                value=name,
            )
    return chosen


def measure(samples: Array, sample_rate: int) -> dict[str, float | bool | str | None]:
    """Measure every feature of a clip.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Raw samples; full scale is 1.0 and may be exceeded.
    sample_rate : int
        In Hz.

    Returns
    -------
    dict of str to float, bool, str or None
        One value for each name in `FEATURES`, in that order. A clip without samples is silent and
        has NaN for every number; one with samples that are not finite has NaN for every number
        and counts as not silent. None stands for a text that is not known.

    Raises
    ------
    ValueError
        When samples is not of shape (channels, n), or sample_rate is not positive.

    Examples
    --------
    >>> measure(np.zeros((1, 32000), np.float32), 32000)["is_silent"]
    True
    """
    if samples.ndim != 2 or samples.shape[0] == 0:
        raise ValueError(f"samples must be of shape (channels, n), got {samples.shape}")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be above 0 Hz, got {sample_rate}")
    values: dict[str, float | bool | str | None] = dict.fromkeys(FEATURES, float("nan"))
    values["key_estimate"] = None
    if samples.shape[1] == 0:
        return values | {"is_silent": True}
    if not np.all(np.isfinite(samples)):
        return values | {"is_silent": False}
    ratio = levels.silence_ratio(samples, sample_rate)
    values |= {
        "loudness_lufs": loudness.loudness_lufs(samples, sample_rate),
        "rms_dbfs": levels.rms_dbfs(samples),
        "peak_dbfs": levels.peak_dbfs(samples),
        "clipping_share": levels.clipping_share(samples),
        "silence_ratio": ratio,
        "is_silent": ratio == 1.0,
        "silent_end_s": levels.silent_end_s(samples, sample_rate),
    }
    return values if ratio == 1.0 else values | _sounding(samples, sample_rate)


def _sounding(samples: Array, sample_rate: int) -> dict[str, float | str | None]:
    """Measure what only a clip that is not silent has."""
    rise_db, times_s = rhythm.onset_strength_db(samples, sample_rate)
    tempo_bpm, beat_strength = rhythm.tempo(rise_db)
    classes = pitch.pitch_class_distribution(samples, sample_rate)
    key, clarity = pitch.estimate_key(classes)
    spectrum = timbre.SoundingSpectrum.of(samples, sample_rate)
    every = slice(None, None, structure.FRAMES_APART)
    mel = mel_from_power(spectrum.power[:, every], sample_rate, spectrum.times_s[every])
    self_similarity, repeat_lag_s = structure.self_similarity(mel)
    return {
        **timbre.timbre(spectrum),
        "zero_crossing_rate_hz": timbre.zero_crossing_rate_hz(samples, sample_rate),
        "onset_rate_hz": len(rhythm.onset_times_s(rise_db, times_s))
        / (samples.shape[1] / sample_rate),
        "tempo_bpm": tempo_bpm,
        "beat_strength": beat_strength,
        "pitch_class_entropy": pitch.pitch_class_entropy(classes),
        "key_estimate": key,
        "key_clarity": clarity,
        "self_similarity": self_similarity,
        "repeat_lag_s": repeat_lag_s,
        "level_change_db": structure.level_change_db(samples, sample_rate),
        "timbre_change_db": structure.timbre_change_db(mel),
    }
