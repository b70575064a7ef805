"""Spectrograms in semitones: constant-Q over the octaves, and chroma with the octaves folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.spectrogram import FLOOR_DB, HOP_S, Array, check_sound

LOWEST_HZ = 440.0 * 2 ** (-33 / 12)  # C2, 65.4 Hz: half a second long, the longest window
OCTAVES = 7
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_PERIODS = 2 / (2 ** (1 / 12) - 1)  # 34 in a window: the Hann window's first zero at a semitone
_HIGHEST = 0.45  # of the sample rate: above it a bin would be cut by half the sample rate


@dataclass(frozen=True, eq=False)
class ConstantQSpectrogram:
    """How much of a clip lies at each semitone, over time.

    Attributes
    ----------
    level_db : np.ndarray [shape=(semitones, t), dtype=float32]
        RMS level in dB re full scale (1.0), never below `FLOOR_DB`. A sine of amplitude 1 at a
        semitone's frequency has -3 dB there and the floor at its neighbours.
    frequencies_hz : np.ndarray [shape=(semitones,)]
        Rising from C2 (65.4 Hz) by semitones, with A4 at 440 Hz, to B8 or 0.45 times the sample
        rate.
    times_s : np.ndarray [shape=(t,)]
        Centres of the frames in seconds.
    """

    level_db: npt.NDArray[np.float32]
    frequencies_hz: Array
    times_s: Array


@dataclass(frozen=True, eq=False)
class Chromagram:
    """How much of a clip lies at each pitch class, over time, all octaves added up.

    Attributes
    ----------
    level_db : np.ndarray [shape=(12, t), dtype=float32]
        In dB re full scale, never below `FLOOR_DB`; C first, as in `PITCH_CLASSES`.
    times_s : np.ndarray [shape=(t,)]
        Centres of the frames in seconds.
    """

    level_db: npt.NDArray[np.float32]
    times_s: Array


def constant_q_db(
    samples: Array, sample_rate: int, *, hop_s: float = HOP_S
) -> ConstantQSpectrogram:
    """Return a clip's constant-Q spectrogram in dB re full scale.

    Every semitone has a Hann window of 34 periods [1]_, so that neighbours are told apart in every
    octave: half a second at C2, 4 ms at B8. Each octave is measured at a sample rate of its own
    [2]_, by cutting the clip's spectrum. Power is averaged over the channels; the clip is taken to
    be silent before and after.

    Parameters
    ----------
    samples : np.ndarray [shape=(channels, n)]
        Full scale is 1.0.
    sample_rate : int
        In Hz.
    hop_s : float > 0
        Distance between frames, in seconds.

    Returns
    -------
    ConstantQSpectrogram

    Raises
    ------
    ValueError
        When samples is not of shape (channels, n) with n > 0, or sample_rate is not positive or
        too low for C2.

    References
    ----------
    .. [1] Brown, J. C. (1991). Calculation of a constant Q spectral transform. Journal of the
       Acoustical Society of America 89(1).
    .. [2] Schörkhuber, C., and Klapuri, A. (2010). Constant-Q transform toolbox for music
       processing. Sound and Music Computing Conference.
    """
    power, frequencies_hz, times_s = constant_q_power(samples, sample_rate, hop_s=hop_s)
    return ConstantQSpectrogram(_level_db(power), frequencies_hz, times_s)


def chroma_db(samples: Array, sample_rate: int, *, hop_s: float = HOP_S) -> Chromagram:
    """Return a clip's power at each pitch class in dB re full scale.

    The constant-Q power of all octaves from C2 on, added up; parameters and errors are those of
    `constant_q_db`.
    """
    power, _, times_s = constant_q_power(samples, sample_rate, hop_s=hop_s)
    return Chromagram(_level_db(fold_octaves(power)), times_s)


def constant_q_power(
    samples: Array, sample_rate: int, *, hop_s: float
) -> tuple[Array, Array, Array]:
    """Return the mean square at each semitone, over time; see `constant_q_db`.

    Returns
    -------
    power : np.ndarray [shape=(semitones, t), dtype=float32]
    frequencies_hz : np.ndarray [shape=(semitones,)]
    times_s : np.ndarray [shape=(t,)]
    """
    check_sound(samples, sample_rate)
    frequencies_hz = LOWEST_HZ * 2 ** (np.arange(12 * OCTAVES) / 12)
    frequencies_hz = frequencies_hz[frequencies_hz <= _HIGHEST * sample_rate]
    if frequencies_hz.size == 0:
        raise ValueError(f"sample_rate must be at least 146 Hz for C2, got {sample_rate}")
    times_s = np.arange(0, samples.shape[1] / sample_rate, hop_s)
    power = np.empty((len(frequencies_hz), len(times_s)), np.float32)
    # As long as the longest window besides, and a multiple of every halving of the rate.
    padded_n = -(-(samples.shape[1] + sample_rate) // 2**OCTAVES) * 2**OCTAVES
    spectrum = np.fft.rfft(samples, padded_n, axis=1)
    for first in range(0, len(frequencies_hz), 12):
        octave_hz, halvings = frequencies_hz[first : first + 12], 0
        while octave_hz[-1] <= 0.2 * sample_rate / 2**halvings and halvings < OCTAVES:
            halvings += 1
        low_n = padded_n >> halvings
        sound = np.fft.irfft(spectrum[:, : low_n // 2 + 1], axis=1) / 2**halvings
        power[first : first + 12] = _octave_power(
            sound.astype(np.float32), sample_rate / 2**halvings, octave_hz, times_s
        )
    return power, frequencies_hz, times_s


def fold_octaves(power: Array) -> Array:
    """Add up the power of equal pitch classes: (semitones, t) from C2 on becomes (12, t)."""
    lacking = -len(power) % 12
    octaves = np.pad(power, ((0, lacking), (0, 0))).reshape(-1, 12, power.shape[1])
    return np.asarray(octaves.sum(axis=0))


def _octave_power(sound: Array, rate: float, octave_hz: Array, times_s: Array) -> Array:
    """Correlate the sound around each time with windowed waves of each frequency."""
    length = 2 * int(np.ceil(_PERIODS * rate / octave_hz[0] / 2)) + 1
    offset_s = (np.arange(length) - length // 2) / rate
    phase = offset_s * octave_hz[:, np.newaxis]
    window = np.where(
        np.abs(phase) < _PERIODS / 2, 0.5 + 0.5 * np.cos(2 * np.pi * phase / _PERIODS), 0.0
    )
    window /= window.sum(axis=1, keepdims=True)
    waves = np.concatenate([window * np.cos(2 * np.pi * phase), window * np.sin(2 * np.pi * phase)])
    padded = np.pad(sound, ((0, 0), (length // 2, length // 2 + 1)))
    starts = np.round(times_s * rate).astype(int)
    views = np.lib.stride_tricks.sliding_window_view(padded, length, axis=1)
    both = views[:, starts] @ waves.T.astype(np.float32)  # (channels, t, cosines then sines)
    squared = np.mean(both**2, axis=0).T
    return np.asarray(2 * (squared[: len(octave_hz)] + squared[len(octave_hz) :]))


def _level_db(power: Array) -> npt.NDArray[np.float32]:
    level_db = 10 * np.log10(np.maximum(power, np.finfo(np.float32).tiny))
    return np.asarray(np.maximum(level_db, FLOOR_DB), np.float32)
