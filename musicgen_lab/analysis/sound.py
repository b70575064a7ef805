"""`Sound`: the samples of a clip, with the spectrograms that several features share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from musicgen_lab.analysis.spectrogram import (
    HOP_S,
    WINDOW_S,
    Array,
    MelSpectrogram,
    mel_from_power,
    power_spectrogram,
)

T = TypeVar("T")

SILENCE_DBFS = -60.0
"""A frame whose RMS level is under this is silent."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A clip to be measured, with a cache of what has been computed from it.

    Attributes
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Full scale is 1.0 and may be exceeded. Finite, with n > 0.
    sample_rate : int
        In Hz.
    """

    samples: Array
    sample_rate: int
    _computed: dict[Callable[[Sound], Any], Any] = field(default_factory=dict, init=False)

    def once(self, compute: Callable[[Sound], T]) -> T:
        """Return a function's result for this sound, cached."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        value: T = self._computed[compute]
        return value

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1] / self.sample_rate)

    @cached_property
    def _spectrogram(self) -> tuple[Array, Array, Array]:
        # Only frames that lie inside the clip: its edges are broadband clicks.
        return power_spectrogram(
            self.samples, self.sample_rate, window_s=WINDOW_S, hop_s=HOP_S, pad=False
        )

    @property
    def frequencies_hz(self) -> Array:
        """Frequencies of the bins, (bins,)."""
        return self._spectrogram[1]

    @cached_property
    def power(self) -> Array:
        """Power averaged over the channels, (bins, t), in frames of 64 ms inside the clip."""
        return np.asarray(self._spectrogram[0].mean(axis=0))

    @cached_property
    def audible_power(self) -> Array:
        """The frames of every channel whose level is at least -60 dBFS, (bins, frames).

        The loudest frame where none is. Channels are frames besides each other and not mixed: the
        spectrum of a sum of two noises is smoother than that of either, so that stereo could not
        be compared with mono.
        """
        frames = np.concatenate(list(self._spectrogram[0]), axis=1)
        power = frames.sum(axis=0)
        return np.asarray(frames[:, power >= min(10 ** (SILENCE_DBFS / 10), power.max())])

    @cached_property
    def mel(self) -> MelSpectrogram:
        """The mel spectrogram in dB re full scale, in the same frames."""
        return mel_from_power(self.power, self.sample_rate, self._spectrogram[2])
