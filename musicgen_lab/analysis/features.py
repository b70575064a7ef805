"""The features of a clip, and `measure`, which gives them all.

Everything is measured on the raw samples: nothing is normalised, resampled or mixed down. What a
clip does not have is NaN: silence has no spectral centroid and no onset rate, and digital silence
has no level either. A feature is a function in one of the modules below; to add one, write it
there (`registry.feature`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from musicgen_lab.analysis import levels, pitch, rhythm, structure, timbre
from musicgen_lab.analysis.drift import DRIFT_FEATURES
from musicgen_lab.analysis.registry import REGISTERED, Feature, RunFeature, Value
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import did_you_mean, split_names

FEATURES_VERSION = 3
"""Raised when a feature's numbers change, so that stored ones are measured again."""

_MODULES = [module.__name__ for module in (levels, timbre, rhythm, pitch, structure)]

FEATURES: Mapping[str, Feature] = MappingProxyType(
    {
        one.name: one
        for one in sorted(
            REGISTERED.values(), key=lambda one: _MODULES.index(one.measure.__module__)
        )
    }
)
"""Every feature by its column name, in the order of the columns."""

RUN_FEATURES: Mapping[str, RunFeature] = MappingProxyType(
    {
        one.name: one
        for one in (
            RunFeature(
                "diversity_db",
                "Diversity over seeds",
                "dB",
                "Mean mel-cepstral distance between two clips that differ in their seed alone.",
            ),
            RunFeature(
                "text_similarity",
                "Match with the prompt",
                "-1 to 1",
                "Cosine of the CLAP embeddings of the clip and its prompt.",
            ),
            RunFeature(
                "content_enjoyment",
                "Enjoyment",
                "1 to 10",
                "How much a listener would like it, predicted by Audiobox Aesthetics.",
            ),
            RunFeature(
                "content_usefulness",
                "Usefulness",
                "1 to 10",
                "How useful it is as material, predicted by Audiobox Aesthetics.",
            ),
            RunFeature(
                "production_complexity",
                "Complexity",
                "1 to 10",
                "How much goes on at once, predicted by Audiobox Aesthetics.",
            ),
            RunFeature(
                "production_quality",
                "Production quality",
                "1 to 10",
                "How clean and well made it sounds, predicted by Audiobox Aesthetics.",
            ),
            *DRIFT_FEATURES.values(),
        )
    }
)
"""The features that a clip only has as part of a run, by name; measured on demand."""

NAMED_FEATURES: Mapping[str, Feature | RunFeature] = MappingProxyType({**FEATURES, **RUN_FEATURES})
"""Every feature that a study can look at, by name."""

NUMBERS = tuple(name for name, one in FEATURES.items() if one.kind == "number")
"""The features that are numbers, and can be averaged and compared."""

DEFAULT_FEATURES = tuple(name for name, one in FEATURES.items() if one.default)
"""What a study looks at unless it names its features: few, as each one more makes all less certain.
"""


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
        features = split_names(features)
    chosen = list(features)
    for name in chosen:
        if not isinstance(name, str) or name not in NAMED_FEATURES:
            raise InvalidRequest(
                f"unknown feature {name!r}{did_you_mean(name, NAMED_FEATURES)}; "
                f"the features are {', '.join(NAMED_FEATURES)}",
                field="features",
                value=name,
            )
    if not chosen:
        raise InvalidRequest("give at least one feature", field="features")
    return list(dict.fromkeys(chosen))


def averaged_features(features: Iterable[str] | None = None) -> list[str]:
    """Return those of the features to look at that have a mean: all but texts, such as a key.

    Parameters and errors are those of `chosen_features`.
    """
    return [name for name in chosen_features(features) if NAMED_FEATURES[name].kind != "text"]


def numeric_features(features: Iterable[str]) -> list[str]:
    """Return the names of the features to average.

    Raises
    ------
    InvalidRequest
        As `chosen_features`, and when one is a text and has no mean.
    """
    chosen = chosen_features(features)
    for name in chosen:
        if NAMED_FEATURES[name].kind == "text":
            raise InvalidRequest(
                f"{name} is a {NAMED_FEATURES[name].unit} and has no mean: count its values in the "
                "frame",
                field="features",
                value=name,
            )
    return chosen


def measure(samples: Array, sample_rate: int) -> dict[str, Value]:
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
    values = {name: one.unknown for name, one in FEATURES.items()}
    if samples.shape[1] == 0:
        return values | {"is_silent": True}
    if not np.all(np.isfinite(samples)):
        return values | {"is_silent": False}
    sound = Sound(samples, sample_rate)
    silent = levels.is_silent(sound)
    for name, one in FEATURES.items():
        if one.of_silence or not silent:
            values[name] = one.measure(sound)
    return values
