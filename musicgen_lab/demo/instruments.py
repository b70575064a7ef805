"""The sounds of the demo's music: instruments made of partials, and drums, always the same.

A note sounds the same whenever it is played: phases are fixed and noise comes from fixed seeds. A
small codec and a small language model can then learn every sound by heart, and spend what they have
on the music.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

SAMPLE_RATE = 32_000  # Hz
FRAME_SAMPLES = 640  # of the codec; notes start on frames, so that their codes are always the same
LONGEST_NOTE_S = 4.2  # a bar at 60 BPM and its release
PARTIALS_MAX_HZ = 9_000.0
DARK_CUTOFF_HZ, BRIGHT_CUTOFF_HZ = 700.0, 5_000.0


@dataclass(frozen=True)
class Timbre:
    """The timbre of an instrument.

    Attributes
    ----------
    amplitudes : tuple of float
        One per partial.
    attack_s : float
        Time to full level.
    decay_s : float
        Time constant of the first partial; infinite for instruments that sustain.
    decay_slope : float
        How much faster higher partials fade: partial h has `decay_s / h**decay_slope`.
    release_s : float
        Time to silence after the note's end.
    vibrato : float
        Depth of 5 Hz vibrato as a share of the frequency.
    ratios : tuple of float
        Frequencies of the partials as multiples of the note's; where empty, the whole numbers.
    noise : float
        Level of the noise of breath, hammer or nail in the attack.
    """

    amplitudes: tuple[float, ...]
    attack_s: float
    decay_s: float = np.inf
    decay_slope: float = 0.0
    release_s: float = 0.06
    vibrato: float = 0.0
    ratios: tuple[float, ...] = ()
    noise: float = 0.0

    def partials(self) -> Iterator[tuple[float, float]]:
        """Return (ratio, amplitude) of every partial."""
        ratios = self.ratios or tuple(range(1, len(self.amplitudes) + 1))
        return zip(ratios, self.amplitudes, strict=True)


def _harmonics(count: int, amplitude: Callable[[int], float]) -> tuple[float, ...]:
    """Return the amplitudes of the harmonic partials 1 to `count`."""
    return tuple(float(amplitude(number)) for number in range(1, count + 1))


TIMBRES = {
    "piano": Timbre(
        _harmonics(16, lambda n: n**-1.1), attack_s=0.004, decay_s=0.9, decay_slope=0.6, noise=0.04
    ),
    "guitar": Timbre(  # plucked at a fifth of the string: every fifth partial is missing
        _harmonics(24, lambda n: abs(np.sin(np.pi * n / 5)) / n**0.8),
        attack_s=0.002,
        decay_s=0.45,
        decay_slope=0.35,
        noise=0.1,
    ),
    "organ": Timbre(
        amplitudes=(0.5, 1.0, 0.8, 0.5, 0.6, 0.3, 0.4),
        ratios=(0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
        attack_s=0.008,
        release_s=0.02,
    ),
    "strings": Timbre(_harmonics(24, lambda n: 1 / n), attack_s=0.09, release_s=0.2, vibrato=0.006),
    "flute": Timbre(
        ratios=(1.0, 2.0, 3.0),
        amplitudes=(1.0, 0.22, 0.06),
        attack_s=0.05,
        release_s=0.08,
        vibrato=0.009,
        noise=0.3,
    ),
    "synth": Timbre(  # a square wave: odd partials only
        _harmonics(31, lambda n: (n % 2) / n), attack_s=0.003, decay_s=1.6, release_s=0.02
    ),
    "bells": Timbre(
        ratios=(1.0, 2.76, 5.4, 8.93),
        amplitudes=(1.0, 0.6, 0.4, 0.2),
        attack_s=0.002,
        decay_s=1.1,
        decay_slope=0.5,
        release_s=0.5,
    ),
    "brass": Timbre(  # strong partials around the sixth
        _harmonics(20, lambda n: np.exp(-(((n - 4) / 5) ** 2))), attack_s=0.035, release_s=0.05
    ),
    "bass": Timbre(
        _harmonics(8, lambda n: n**-1.3),
        attack_s=0.005,
        decay_s=0.7,
        decay_slope=0.5,
        release_s=0.04,
    ),
}

DRUMS = ("kick", "snare", "hat", "timpani")


def frequency_hz(midi: int) -> float:
    """Return the frequency of a MIDI note number, A4 = 69 = 440 Hz, on a grid of 5 or 2.5 Hz.

    A held note then repeats every 10 or 20 codec frames, which makes it easy to continue. The
    price is a few cents of intonation.
    """
    exact = 440.0 * 2 ** ((midi - 69) / 12)
    grid_hz = 5.0 if exact > 130 else 2.5
    return float(grid_hz * round(exact / grid_hz))


def play_note(instrument: str, midi: int, length_s: float, bright: bool) -> Array:
    """Return the sound of one note.

    Parameters
    ----------
    instrument : str
        One of `TIMBRES`.
    midi : int
        MIDI note number.
    length_s : float
        From the attack to the release, at most 4 s.
    bright : bool
        Otherwise dark: partials above 700 Hz are damped.

    Returns
    -------
    np.ndarray [shape=(n,)]
        RMS of about 0.2 in the first quarter second, release included at the end.
    """
    whole = _sustain(instrument, midi, bright)
    end = round(length_s * SAMPLE_RATE)
    release = round(TIMBRES[instrument].release_s * SAMPLE_RATE)
    sound = whole[: end + release].copy()
    tail = sound[end:]
    tail *= (0.5 + 0.5 * np.cos(np.pi * np.arange(len(tail)) / release)).astype(np.float32)
    return sound


@lru_cache(maxsize=1024)
def _sustain(instrument: str, midi: int, bright: bool) -> Array:
    """Return a note held as long as any can be: (n,)."""
    timbre = TIMBRES[instrument]
    t = np.arange(round(LONGEST_NOTE_S * SAMPLE_RATE)) / SAMPLE_RATE
    base_hz = frequency_hz(midi)
    wobble = timbre.vibrato * np.sin(2 * np.pi * 5 * t)
    cycles = np.cumsum(base_hz * (1 + wobble)) / SAMPLE_RATE
    sound = np.zeros_like(t)
    for ratio, amplitude in timbre.partials():
        if base_hz * ratio < PARTIALS_MAX_HZ and amplitude > 0:
            level = amplitude * _filter_gain(base_hz * ratio, bright)
            decay = np.exp(-t * ratio**timbre.decay_slope / timbre.decay_s)
            sound += level * decay * np.sin(2 * np.pi * ratio * cycles)
    if timbre.noise:
        # One noise per instrument: it is the player's, not the note's.
        sound += (
            timbre.noise * np.exp(-t / 0.03) * _noise(len(t), sum(map(ord, instrument)), bright)
        )
    sound *= np.minimum(t / timbre.attack_s, 1.0)
    quarter = sound[: SAMPLE_RATE // 4]
    single: Array = (sound * (0.2 / np.sqrt(np.mean(quarter**2)))).astype(np.float32)
    single.setflags(write=False)
    return single


def _filter_gain(hz: float, bright: bool) -> float:
    """Return the gain of a second-order low-pass at a frequency."""
    cutoff_hz = BRIGHT_CUTOFF_HZ if bright else DARK_CUTOFF_HZ
    return float(1 / (1 + (hz / cutoff_hz) ** 2))


def _noise(samples: int, seed: int, bright: bool) -> npt.NDArray[np.float64]:
    """Return filtered noise with RMS 1: (n,)."""
    white = np.random.default_rng(seed).standard_normal(samples)
    spectrum = np.fft.rfft(white)
    hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    cutoff_hz = BRIGHT_CUTOFF_HZ if bright else DARK_CUTOFF_HZ
    spectrum *= (hz > 200) / (1 + (hz / cutoff_hz) ** 2)
    shaped = np.fft.irfft(spectrum, samples)
    return np.asarray(shaped / np.sqrt(np.mean(shaped**2)))


@lru_cache(maxsize=16)
def play_drum(name: str, bright: bool) -> Array:
    """Return the sound of one stroke.

    Parameters
    ----------
    name : {"kick", "snare", "hat", "timpani"}
    bright : bool
        Otherwise dark: what is above 700 Hz is damped.

    Returns
    -------
    np.ndarray [shape=(n,)]
        Peak of about 1.
    """
    t = np.arange(round(0.7 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = _noise(len(t), len(name), bright)
    if name == "kick":
        pitch_hz = 50 + 110 * np.exp(-t / 0.03)
        sound = np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE) * np.exp(-t / 0.09)
    elif name == "snare":
        sound = 0.5 * np.sin(2 * np.pi * 190 * t) * np.exp(-t / 0.05)
        sound += 0.35 * noise * np.exp(-t / 0.08)
    elif name == "hat":
        high = np.diff(noise, prepend=0.0)
        sound = high * np.exp(-t / 0.025)
    else:  # timpani
        sound = np.sin(2 * np.pi * 98 * t) + 0.4 * np.sin(2 * np.pi * 147 * t)
        sound = sound * np.exp(-t / 0.22)
    sound = sound / np.abs(sound).max()
    if name == "hat" and not bright:
        sound = 0.4 * sound
    single: Array = sound.astype(np.float32)
    single.setflags(write=False)
    return single
