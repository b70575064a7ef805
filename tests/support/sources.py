"""Sound files to begin with."""

from __future__ import annotations

import io

import soundfile

from musicgen_lab.source import Source
from tests.support.sounds import RATE, sine


def sound_file(samples, *, rate=RATE, format="WAV", subtype=None):
    """Return the content of a sound file of samples (channels, n)."""
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate, format=format, subtype=subtype)
    return file.getvalue()


def hum(duration_s=2.0, frequency_hz=220, name="hum.wav"):
    """Return the source of a hum."""
    content = sound_file(sine(frequency_hz, amplitude=0.5, duration_s=duration_s))
    return Source.of_bytes(content, name)
