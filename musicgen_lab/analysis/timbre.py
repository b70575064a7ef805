"""Features of a clip's spectrum: averages over its audible frames, of every channel.

None depends on gain, as long as the same frames are audible. The spectral features are librosa's,
on 64 ms frames that lie inside the clip.
"""

from __future__ import annotations

import numpy as np

from musicgen_lab.analysis.librosa_modules import load_librosa
from musicgen_lab.analysis.registry import feature
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import HOP_S, Array

ROLLOFF_SHARE = 0.85
FLATNESS_FLOOR_DB = -100.0
CONTRAST_LOWEST_HZ, CONTRAST_OCTAVES = 200.0, 6
MEDIAN_S, MEDIAN_HZ = 0.5, 500.0  # spans of the medians that separate tones from clicks
MEDIAN_FRAMES_APART = 2  # the frames overlap by three quarters
_TINY = float(np.finfo(np.float32).tiny)


@feature("Brightness", "Hz", default=True)
def spectral_centroid_hz(sound: Sound) -> float:
    """Spectral centroid, the magnitude-weighted mean frequency: how bright the clip sounds.

    Known truth: a sine has its frequency, white noise a quarter of the sample rate.

    Limits: soft noise over the whole band raises it as much as louder high notes do.

    Source: Klapuri and Davy (2007), Signal Processing Methods for Music Transcription, chapter 5.
    """
    librosa = load_librosa()

    magnitude = np.sqrt(sound.audible_power)
    return float(librosa.feature.spectral_centroid(S=magnitude, freq=sound.frequencies_hz).mean())


@feature("Spectral bandwidth", "Hz")
def spectral_bandwidth_hz(sound: Sound) -> float:
    """Magnitude-weighted standard deviation of frequency around the centroid.

    Known truth: white noise has half the sample rate over the square root of 12.

    Limits: as the centroid; two tones far apart and noise between them are alike.

    Source: Klapuri and Davy (2007), as for the centroid.
    """
    librosa = load_librosa()

    magnitude = np.sqrt(sound.audible_power)
    return float(librosa.feature.spectral_bandwidth(S=magnitude, freq=sound.frequencies_hz).mean())


@feature("Spectral rolloff", "Hz")
def spectral_rolloff_hz(sound: Sound) -> float:
    """Frequency under which 85% of the magnitude lies.

    Known truth: a sine has its frequency, white noise 85% of half the sample rate.

    Limits: in steps of 15.6 Hz.

    Source: Tzanetakis and Cook (2002), Musical genre classification of audio signals, IEEE
    Transactions on Speech and Audio Processing 10(5).
    """
    librosa = load_librosa()

    magnitude = np.sqrt(sound.audible_power)
    rolloff = librosa.feature.spectral_rolloff(
        S=magnitude, freq=sound.frequencies_hz, roll_percent=ROLLOFF_SHARE
    )
    return float(rolloff.mean())


@feature("Noisiness", "dB", default=True)
def spectral_flatness_db(sound: Sound) -> float:
    """Spectral flatness, geometric over arithmetic mean of the power spectrum: how noisy it sounds.

    Known truth: white noise has -2.5 dB (0.56, as the power of its bins varies), a sine less than
    -60.

    Limits: never below -100 dB. Of a few tones it says mostly how little there is between them,
    such as the noise of a codec.

    Source: Dubnov (2004), Generalization of spectral flatness measure for non-Gaussian linear
    processes, IEEE Signal Processing Letters 11(8).
    """
    librosa = load_librosa()

    power = sound.audible_power
    # Relative to each frame's sum, as librosa's floor (amin) is absolute.
    flatness = librosa.feature.spectral_flatness(S=power / power.sum(axis=0), power=1, amin=1e-20)
    return float(np.maximum(10 * np.log10(flatness), FLATNESS_FLOOR_DB).mean())


@feature("Spectral contrast", "dB")
def spectral_contrast_db(sound: Sound) -> float:
    """How far the peaks stand above the valleys of the spectrum, averaged over octaves.

    The highest 2% of the power against the lowest 2% in the band up to 200 Hz and in up to six
    octaves above it.

    Known truth: two tones over soft noise have more than noise alone.

    Limits: never more than 80 dB; depends on the sample rate, which limits the octaves.

    Source: Jiang et al. (2002), Music type classification by spectral contrast feature, ICME.
    """
    librosa = load_librosa()

    power = sound.audible_power
    octaves = int(np.log2(sound.sample_rate / 2 / CONTRAST_LOWEST_HZ))
    if octaves < 1:
        return float("nan")
    contrast_db = librosa.feature.spectral_contrast(
        S=power / power.max(),
        freq=sound.frequencies_hz,
        fmin=CONTRAST_LOWEST_HZ,
        n_bands=min(CONTRAST_OCTAVES, octaves),
    )
    return float(contrast_db.mean())


@feature("Zero-crossing rate", "per second")
def zero_crossing_rate_hz(sound: Sound) -> float:
    """Changes of sign per second, averaged over the channels.

    Known truth: a sine has twice its frequency, white noise half the sample rate.

    Limits: soft noise in pauses counts as much as loud sound; a shift by a constant hides all.

    Source: Kedem (1986), Spectral analysis and discrimination by zero-crossings, Proceedings of
    the IEEE 74(11).
    """
    librosa = load_librosa()

    if sound.samples.shape[1] < 2:
        return float("nan")
    crossings = librosa.zero_crossings(sound.samples, threshold=0, pad=False)
    return float(crossings[:, 1:].mean() * sound.sample_rate)


@feature("Sustained share", "0 to 1", default=True)
def harmonic_ratio(sound: Sound) -> float:
    """Share of the power in sustained tones rather than in clicks.

    Tones are lines along time, clicks lines along frequency: the power is separated by which of
    the two medians, over half a second or over 500 Hz, is the larger, with soft masks. Median
    filters over rows laid out in one line take 20 ms a clip of 8 s; librosa.decompose.hpss, which
    does the same, takes 457.

    Known truth: a sine has over 0.99, clicks under 0.05; noise is near 0.5.

    Limits: fast runs of notes count as half percussive; a drum that rings counts as a tone.

    Source: FitzGerald (2010), Harmonic/percussive separation using median filtering, DAFx.
    """
    power = sound.power[:, ::MEDIAN_FRAMES_APART]
    power = power / power.max()
    along_time = 2 * round(MEDIAN_S / HOP_S / MEDIAN_FRAMES_APART / 2) + 1
    along_frequency = 2 * round(MEDIAN_HZ / sound.frequencies_hz[1] / 2) + 1
    tonal = _median_of_rows(power, along_time) ** 2
    percussive = _median_of_rows(power.T, along_frequency).T ** 2
    mask = (tonal + _TINY) / (tonal + percussive + 2 * _TINY)
    return float(np.sum(mask * power) / np.sum(power))


def _median_of_rows(rows: Array, length: int) -> Array:
    """Return the running median along the last axis, mirrored at its ends.

    All rows in one line with gaps between: SciPy's filter is eight times faster on a line.
    """
    from scipy.ndimage import median_filter

    half = min(length // 2, rows.shape[1])
    padded = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    line: Array = median_filter(padded.ravel(), size=2 * half + 1)
    return line.reshape(padded.shape)[:, half : half + rows.shape[1]]
