"""Features of a clip's level, and of its silence."""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.registry import feature
from musicgen_lab.analysis.sound import SILENCE_DBFS, Sound
from musicgen_lab.analysis.spectrogram import Array

SILENCE_FRAME_S = 0.05
FULL_SCALE = 1 - 2**-15  # the largest positive sample of 16-bit sound
LOUDNESS_BLOCK_S, LOUDNESS_GATE_LUFS, LOUDNESS_CHANNELS = 0.4, -70.0, 5
LOUDNESS_RATE_LOWEST_HZ = 4000  # the filters need 1.7 kHz


@feature("Loudness", "LUFS", default=True, of_silence=True)
def loudness_lufs(sound: Sound) -> float:
    """Integrated loudness of ITU-R BS.1770-4: frequencies weighted as heard, pauses left out.

    Measured by pyloudnorm with De Man's filters, which hold at every sample rate. Loudness adds up
    over channels: the same sound in two channels has 3 LU more than in one.

    Known truth: a 997 Hz sine of amplitude 1 in one channel has -3.01 LUFS at every sample rate.

    Limits: NaN for clips under 0.4 s, the standard's block, for those under its gate of -70 LUFS,
    for more than five channels and for sample rates under 4 kHz.

    Source: ITU-R BS.1770-4 (2015), Algorithms to measure audio programme loudness.
    """
    import pyloudnorm

    channels, n = sound.samples.shape
    too_short = n < LOUDNESS_BLOCK_S * sound.sample_rate
    if too_short or channels > LOUDNESS_CHANNELS or sound.sample_rate < LOUDNESS_RATE_LOWEST_HZ:
        return float("nan")
    meter = pyloudnorm.Meter(sound.sample_rate, filter_class="DeMan", block_size=LOUDNESS_BLOCK_S)
    loudness = float(meter.integrated_loudness(sound.samples.T.astype(np.float64)))
    return loudness if loudness >= LOUDNESS_GATE_LUFS else float("nan")


@feature("RMS level", "dBFS", of_silence=True)
def rms_dbfs(sound: Sound) -> float:
    """Root mean square over all samples and channels, re full scale (1.0).

    Known truth: a sine of amplitude 1 has -3.01 dBFS.

    Limits: NaN for digital silence. Says nothing of how loud a person hears it: see the loudness.
    """
    return level_dbfs(sound.samples)


@feature("Peak level", "dBFS", of_silence=True)
def peak_dbfs(sound: Sound) -> float:
    """Largest absolute sample of any channel, re full scale; above 0 where players clip.

    Known truth: a sine of amplitude 0.5 has -6.02 dBFS.

    Limits: the wave between the samples may be higher (the true peak of BS.1770). NaN for digital
    silence.
    """
    return _decibels(float(np.max(np.abs(sound.samples))))


@feature("Clipping", "0 to 1", of_silence=True)
def clipping_share(sound: Sound) -> float:
    """Share of the samples at full scale or beyond, of either sign.

    Full scale is the largest positive number of 16-bit sound (32,767 of 32,768).

    Known truth: a sine of amplitude 2 has two thirds, as float samples and, cut off, in 16 bits.

    Limits: sound that was clipped and then turned down has none.
    """
    return float(np.mean(np.abs(sound.samples) >= FULL_SCALE))


@feature("Silence", "0 to 1", default=True, of_silence=True)
def silence_ratio(sound: Sound) -> float:
    """Share of the clip's 50 ms frames whose RMS level is under -60 dBFS.

    Known truth: a tone of 1 s followed by 3 s of zeros has 0.75.

    Limits: soft noise counts as sound; a quiet clip may count as silent.
    """
    return float(np.mean(silent_frames(sound.samples, sound.sample_rate)))


@feature("Silent", "yes or no", kind="yes or no", of_silence=True)
def is_silent(sound: Sound) -> bool:
    """Whether every frame is silent, so that nothing is to be heard.

    Known truth: zeros are silent, a sine at -40 dBFS is not.
    """
    return silence_ratio(sound) == 1.0 or not sound.power.any()


@feature("Silence at the end", "s", of_silence=True)
def silent_end_s(sound: Sound) -> float:
    """How long the clip is silent at its end, in steps of 50 ms.

    Known truth: a tone of 2.5 s in a clip of 4 s leaves 1.5 s.

    Limits: a tail of noise over -60 dBFS is not silent.
    """
    sounding = np.flatnonzero(~silent_frames(sound.samples, sound.sample_rate))
    sounds_until_n = (sounding[-1] + 1) * _frame_n(sound.sample_rate) if sounding.size else 0
    return max(0.0, float(sound.samples.shape[1] - sounds_until_n) / sound.sample_rate)


def level_dbfs(samples: Array) -> float:
    """Return the RMS level over all channels in dB re full scale; NaN where every sample is 0."""
    return _decibels(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def silent_frames(samples: Array, sample_rate: int) -> np.ndarray:
    """Return which 50 ms frames are under -60 dBFS. The last may be shorter."""
    starts = np.arange(0, samples.shape[1], _frame_n(sample_rate))
    lengths = np.diff(np.append(starts, samples.shape[1]))
    power = np.mean(np.square(samples, dtype=np.float64), axis=0)
    mean_square = np.add.reduceat(power, starts) / lengths
    return np.asarray(mean_square < 10 ** (SILENCE_DBFS / 10))


def _frame_n(sample_rate: int) -> int:
    return max(1, round(SILENCE_FRAME_S * sample_rate))


def _decibels(amplitude: float) -> float:
    return float(20 * np.log10(amplitude)) if amplitude > 0 else float("nan")
