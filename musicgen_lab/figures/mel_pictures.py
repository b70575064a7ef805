"""The mel spectrograms of a run's clips as images, on one scale."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicgen_lab.analysis.spectrogram import FLOOR_DB, HOP_S, N_MELS, MelSpectrogram, hz_to_mel
from musicgen_lab.runs.run_table import RunTable, seams_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR_MAP = "magma"  # perceptually uniform, also in greyscale and for colour-blind readers
LEVEL_RANGE_DB = 80.0
PICTURE_WIDTH, PICTURE_HEIGHT = 480, 192
TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


class MelPictures:
    """The mel spectrograms of every finished clip of a run, on one scale.

    Parameters
    ----------
    table : RunTable
    level_range_db : float > 0
        The range of the colour scale, in dB.

    Attributes
    ----------
    by_key : Mapping of str to MelSpectrogram
        By the clip's key.
    level_limits_db : tuple of float
        Levels of the darkest and lightest colour, in dB re full scale, equal for every clip. The
        lightest is the highest level of any clip, rounded up to 10 dB.
    duration_s : float
        The longest clip's, which all pictures share as their time axis.
    mel_limits : tuple of float
        Edges of the lowest and the highest band of any clip, which all pictures share as their
        frequency axis, in mels on Slaney's scale.
    """

    def __init__(self, table: RunTable, *, level_range_db: float = LEVEL_RANGE_DB) -> None:
        made = table.frame[table.frame["status"] == "ok"]
        self.duration_s = float(made["duration_s"].max()) if len(made) else 1.0
        rate_hz = int(made["sample_rate_hz"].max()) if len(made) else 2
        half_band = float(hz_to_mel(np.array(rate_hz / 2))) / (N_MELS + 1) / 2
        self.mel_limits = (half_band, (2 * N_MELS + 1) * half_band)
        self.by_key = table.mel_spectrograms(max(HOP_S, self.duration_s / PICTURE_WIDTH))
        highest_db = max(
            (float(mel.level_db.max()) for mel in self.by_key.values()), default=FLOOR_DB
        )
        top_db = max(10.0 * math.ceil(highest_db / 10), FLOOR_DB + level_range_db)
        self.level_limits_db = (top_db - level_range_db, top_db)

    def png(self, key: str) -> bytes:
        """Return a clip's picture: time to the right, mel frequency upwards, no axes.

        What lies after the end of a shorter clip, or above a lower sample rate, is transparent.
        """
        from matplotlib import colormaps
        from PIL import Image

        palette = np.round(255 * colormaps[COLOUR_MAP](np.arange(256))[:, :3]).astype(np.uint8)
        image = Image.fromarray(self._indexed(self.by_key[key]), mode="P")
        image.putpalette(palette.tobytes())
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True, transparency=0)
        return buffer.getvalue()

    def _indexed(self, mel: MelSpectrogram) -> npt.NDArray[np.uint8]:
        """Return palette indices of shape (height, width), top row first; 0 is transparent."""
        low_db, high_db = self.level_limits_db
        share = np.clip((mel.level_db - low_db) / (high_db - low_db), 0.0, 1.0)
        colours = np.round(1 + 254 * share).astype(np.uint8)
        band_mel = hz_to_mel(mel.frequencies_hz)
        lowest, highest = self.mel_limits
        upwards = (np.arange(PICTURE_HEIGHT)[::-1] + 0.5) / PICTURE_HEIGHT
        mel_at = lowest + upwards * (highest - lowest)
        time_at = (np.arange(PICTURE_WIDTH) + 0.5) / PICTURE_WIDTH * self.duration_s
        bands = np.round((mel_at - band_mel[0]) / (band_mel[1] - band_mel[0])).astype(int)
        hop_s = mel.times_s[1] - mel.times_s[0] if len(mel.times_s) > 1 else self.duration_s
        frames = np.round(time_at / hop_s).astype(int)
        picture: npt.NDArray[np.uint8] = colours[
            np.clip(bands, 0, len(band_mel) - 1)[:, np.newaxis],
            np.clip(frames, 0, len(mel.times_s) - 1),
        ]
        picture[bands >= len(band_mel), :] = 0
        picture[:, frames > len(mel.times_s)] = 0
        return picture


def share_scale(a: MelPictures, b: MelPictures) -> None:
    """Make the images of two runs use the same colour scale and axes."""
    low_db = max(a.level_limits_db[0], b.level_limits_db[0])
    high_db = max(a.level_limits_db[1], b.level_limits_db[1])
    for pictures in (a, b):
        pictures.level_limits_db = (low_db, high_db)
    a.duration_s = b.duration_s = max(a.duration_s, b.duration_s)
    a.mel_limits = b.mel_limits = max(a.mel_limits, b.mel_limits, key=lambda limits: limits[1])


def label_mel_axes(axes: Axes, duration_s: float, highest_hz: float) -> None:
    """Give a single spectrogram its limits, and labels in kHz on the mel scale."""
    axes.set_xlim(0, duration_s)
    axes.set_ylim(0, float(hz_to_mel(np.array(highest_hz))))
    ticks = [hz for hz in TICKS_HZ if hz < highest_hz]
    axes.set_yticks(hz_to_mel(np.array(ticks, float)), [f"{hz / 1000:g}" for hz in ticks])
    axes.set_ylabel("kHz, mel scale")
    axes.spines[:].set_visible(True)


def mark_seams(axes: Axes, record: Mapping[str, Any]) -> None:
    """Mark where the windows of a row's clip join, on its spectrogram."""
    for at_s in seams_of(record):
        axes.axvline(at_s, color="#ffffff", linestyle=":", linewidth=1)
