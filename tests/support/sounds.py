"""Signals whose features are known: tones, chords, clicks, noise."""

from __future__ import annotations

import numpy as np

RATE = 32_000


def times(duration_s, rate=RATE):
    return np.arange(round(duration_s * rate)) / rate


def sine(frequency_hz, *, amplitude=1.0, duration_s=2.0, rate=RATE):
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * times(duration_s, rate))
    return wave[np.newaxis].astype(np.float32)


def chord(*frequencies_hz, duration_s=2.0, rate=RATE):
    parts = [sine(f, amplitude=0.2, duration_s=duration_s, rate=rate) for f in frequencies_hz]
    return np.sum(parts, axis=0)


def clicks(per_second, *, duration_s=4.0, rate=RATE):
    """Return single loud samples at a steady rate, and their times in seconds."""
    samples = np.zeros((1, round(duration_s * rate)), np.float32)
    at_s = np.arange(0.5 / per_second, duration_s, 1 / per_second)
    samples[0, np.round(at_s * rate).astype(int)] = 0.8
    return samples, at_s


def noise(*, level=0.1, duration_s=2.0, rate=RATE, channels=1, seed=0):
    shape = (channels, round(duration_s * rate))
    return np.random.default_rng(seed).normal(0, level, shape).astype(np.float32)


def notes(midi, *, note_s=0.25, rate=RATE):
    """Return decaying tones one after another; the numbers are MIDI's, 69 is A4."""
    t = times(note_s, rate)
    played = [
        0.5 * np.exp(-8 * t) * np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * t)
        for note in midi
    ]
    return np.concatenate(played)[np.newaxis].astype(np.float32)
