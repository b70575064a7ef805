"""Features of a clip's pitch classes and its key. None of them depends on gain."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.librosa_modules import load_librosa
from musicgen_lab.analysis.registry import feature
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import Array

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
LOWEST_HZ, OCTAVES_MOST = 440.0 * 2 ** (-33 / 12), 6  # from C2, 65.4 Hz, to B7
HIGHEST = 0.45  # of the sample rate
BINS_PER_SEMITONE = 3
CHROMA_HOP_S = 0.064
SHORTEST_S = 2.0  # shorter clips are padded to it: the window of C2 takes 0.8 s
PITCHED_SHARE_LEAST = 1e-4  # of the power; a constant offset has nothing from C2 up
NO_KEY_ENTROPY = 0.96  # rendered pieces with drums have up to 0.93, coloured noise from 0.99

# How well each degree of a scale fits its key, from the tonic up (Temperley 2001, table 7.1).
_MAJOR = (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0)
_MINOR = (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0)


@feature("Pitch variety", "0 to 1", default=True)
def pitch_class_entropy(sound: Sound) -> float:
    """How evenly the power is spread over the twelve pitch classes: 0 a single one, 1 all alike.

    Shannon entropy of librosa's constant-Q chroma, from C2 (65 Hz) to at most B7.

    Known truth: one note has 0.05 or less, a triad of sines 0.44, white noise 1.

    Limits: overtones and drums count; tuned to A4 = 440 Hz. NaN where nothing sounds from C2 up.
    """
    return _entropy(sound.once(pitch_class_distribution))


@feature("Key", "name", kind="text")
def key_estimate(sound: Sound) -> str | None:
    """The major or minor key that fits the pitch classes best, such as "C major" or "F# minor".

    Krumhansl and Schmuckler's algorithm: the correlation of the magnitudes at each pitch class
    with the profile of each of the 24 keys, here Temperley's.

    Known truth: rendered pieces in known keys (docs/features.md).

    Limits: mistaken for the relative or parallel key and for that of the dominant; one key for the
    whole clip. None for noise, whose pitch classes are alike, and where nothing sounds from C2 up.

    Source: Temperley (2001), The Cognition of Basic Musical Structures, chapter 7, MIT Press.
    """
    return sound.once(estimate_key)[0]


@feature("Key clarity", "0 to 1")
def key_clarity(sound: Sound) -> float:
    """How far the best key's correlation is ahead of the next best one's: 0 not at all.

    Known truth: it is higher where the key is right: docs/features.md has the share of pairs.

    Limits: a piece on few notes fits several keys and has a low one, though its notes are clear.
    NaN where there is no key.
    """
    return sound.once(estimate_key)[1]


def constant_q(sound: Sound) -> Array:
    """Return librosa's constant-Q magnitudes from C2 on, averaged over the channels' power.

    Returns
    -------
    np.ndarray [shape=(36 * octaves, t)]
        Three bins to a semitone. As librosa scales them: a tone one octave lower, of the same
        amplitude, has the square root of 2 times the magnitude. Empty where nothing sounds from C2
        up, or the sample rate is too low for an octave.
    """
    librosa = load_librosa()

    octaves = min(OCTAVES_MOST, int(np.log2(max(1.0, HIGHEST * sound.sample_rate / LOWEST_HZ))))
    pitched = sound.power[sound.frequencies_hz >= LOWEST_HZ * 2 ** (-1 / 24)].sum()
    if octaves == 0 or pitched < PITCHED_SHARE_LEAST * sound.power.sum():
        return np.empty((0, 0))
    samples = sound.samples / np.max(np.abs(sound.samples))
    lacking = max(0, round(SHORTEST_S * sound.sample_rate) - samples.shape[1])
    spectrum = librosa.cqt(
        np.pad(samples, ((0, 0), (0, lacking))),
        sr=sound.sample_rate,
        hop_length=max(1, round(CHROMA_HOP_S * sound.sample_rate)),
        fmin=LOWEST_HZ,
        n_bins=12 * BINS_PER_SEMITONE * octaves,
        bins_per_octave=12 * BINS_PER_SEMITONE,
        tuning=0.0,
    )
    return np.asarray(np.sqrt(np.mean(np.square(np.abs(spectrum)), axis=0)))


def pitch_class_distribution(sound: Sound) -> Array:
    """Return the share of a clip's power that lies at each pitch class, C first: (12,).

    Adds up to 1; NaN where nothing sounds from C2 up.
    """
    magnitudes = sound.once(constant_q)
    octave = np.arange(len(magnitudes)) / (12 * BINS_PER_SEMITONE)
    return _by_class(magnitudes**2 * 2 ** octave[:, np.newaxis])


def estimate_key(sound: Sound) -> tuple[str | None, float]:
    """Return the key and its clarity, as the features of that name."""
    if not _entropy(sound.once(pitch_class_distribution)) <= NO_KEY_ENTROPY:
        return None, float("nan")
    magnitudes = _by_class(sound.once(constant_q))
    names = [f"{name} {mode}" for mode in ("major", "minor") for name in PITCH_CLASSES]
    correlations = np.array(
        [
            np.corrcoef(np.roll(profile, tonic), magnitudes)[0, 1]
            for profile in (_MAJOR, _MINOR)
            for tonic in range(12)
        ]
    )
    second, best = np.argsort(correlations)[-2:]
    return names[best], float(correlations[best] - correlations[second])


def _by_class(bins: Array) -> Array:
    librosa = load_librosa()

    if bins.size == 0:
        return np.full(12, np.nan)
    chroma = librosa.feature.chroma_cqt(
        C=bins, fmin=LOWEST_HZ, bins_per_octave=12 * BINS_PER_SEMITONE, norm=None
    )
    total = chroma.sum(axis=1, dtype=np.float64)
    return np.asarray(total / total.sum())


def _entropy(distribution: Array) -> float:
    share = np.maximum(distribution, np.finfo(float).tiny)
    return float(-np.sum(share * np.log(share)) / np.log(len(share)))
