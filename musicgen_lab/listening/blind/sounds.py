"""The sounds of a trial, alike in all that does not matter: length, loudness, format and size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from musicgen_lab.analysis.levels import loudness_lufs
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.clip import Clip, Samples, encode_wav
from musicgen_lab.listening.previews import MATCHED_LUFS

FADE_S = 0.02
"""Length of the fade at the end, where clips are cut."""


def equal_sounds(clips: Sequence[Clip], length_s: float) -> list[bytes]:
    """Return clips as WAV files of 16 bits that differ in their music alone.

    They are cut to the same length, resampled to the highest sample rate among them, have the same
    channels and the same loudness: -23 LUFS, or as much less as the one with the highest peaks
    allows, so that none is limited. A silent clip stays as it is.

    Parameters
    ----------
    clips : sequence of Clip
    length_s : float
        Not longer than the shortest of them.

    Returns
    -------
    list of bytes
        All of one size.
    """
    sample_rate = max(clip.sample_rate for clip in clips)
    channels = max(clip.samples.shape[0] for clip in clips)
    cut = [_cut(clip, sample_rate, channels, length_s) for clip in clips]
    loudness = [loudness_lufs(Sound(samples, sample_rate)) for samples in cut]
    peaks = [float(np.max(np.abs(samples), initial=0.0)) for samples in cut]
    # A clip without a loudness, such as silence, is only kept from exceeding full scale.
    headroom = [
        level - 20 * math.log10(peak)
        for level, peak in zip(loudness, peaks, strict=True)
        if math.isfinite(level)
    ]
    target_lufs = min([MATCHED_LUFS, *headroom])
    gains = [
        10 ** ((target_lufs - level) / 20) if math.isfinite(level) else 1 / max(1.0, peak)
        for level, peak in zip(loudness, peaks, strict=True)
    ]
    return [
        encode_wav((gain * samples).astype(np.float32), sample_rate, "PCM_16")
        for gain, samples in zip(gains, cut, strict=True)
    ]


def _cut(clip: Clip, sample_rate: int, channels: int, length_s: float) -> Samples:
    """Return the beginning of a clip with a fade at its end, in the given format."""
    from scipy.signal import resample_poly

    samples = np.nan_to_num(clip.samples, nan=0.0, posinf=0.0, neginf=0.0)
    if clip.sample_rate != sample_rate:
        common = math.gcd(sample_rate, clip.sample_rate)
        samples = resample_poly(
            samples, sample_rate // common, clip.sample_rate // common, axis=1
        ).astype(np.float32)
    n = math.floor(length_s * sample_rate)
    samples = np.pad(samples[:, :n], [(0, 0), (0, max(0, n - samples.shape[1]))])
    if samples.shape[0] < channels:
        samples = np.repeat(samples, channels, axis=0)
    fade = min(n, round(FADE_S * sample_rate))
    samples[:, n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return samples
