"""Compressed copies of clips with their spectrograms: as files beside a page, or embedded in it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.mel_pictures import MelPictures
from musicgen_lab.runs.atomic_io import unwritable, write_atomically
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.templating import data_uri

LISTENING_FOLDER = "listening"
MP3_SAMPLE_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MATCHED_LUFS = -23.0
"""The loudness of matched copies (EBU R 128), low enough that few clips would exceed full scale."""

PEAKS = 240
"""The points of a waveform: more than a player is wide."""

EMBEDDED_MB_MAX = 32
"""The maximum size of embedded files in one page or notebook."""


@dataclass(frozen=True)
class Preview:
    """A clip's files for a page, each as a link or a data URI.

    Attributes
    ----------
    picture : str
        Its mel spectrogram.
    as_made : str
        Its audio at its own level, attenuated only if it would clip.
    matched : str
        Its audio at the same loudness as all others; the same as `as_made` if it is silent.
    peaks: str
        Its waveform, see `encode_peaks`.
    """

    picture: str
    as_made: str
    matched: str
    peaks: str


def encode_preview(clip: Clip, *, gain_db: float = 0.0) -> tuple[bytes, str]:
    """Encode a clip for players, attenuated only if it would clip.

    Parameters
    ----------
    clip : Clip
    gain_db : float
        Gain to apply, in dB.

    Returns
    -------
    content : bytes
    suffix : str
        ".mp3"; or ".wav", in 16 bits, if MP3 does not support the sample rate or channels.
    """
    import soundfile

    samples = clip.samples * 10 ** (gain_db / 20)
    samples = samples / max(1.0, float(np.max(np.abs(samples), initial=0.0)))
    is_mp3 = clip.sample_rate in MP3_SAMPLE_RATES_HZ and samples.shape[0] <= 2
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples.T,
        clip.sample_rate,
        format="MP3" if is_mp3 else "WAV",
        subtype="MPEG_LAYER_III" if is_mp3 else "PCM_16",
    )
    return buffer.getvalue(), ".mp3" if is_mp3 else ".wav"


def encode_peaks(samples: npt.NDArray[np.float32]) -> str:
    """Return a clip's waveform for a player, which then need not decode the clip to draw it.

    Parameters
    ----------
    samples : array of shape (channels, n)

    Returns
    -------
    str
        Base64 of at most `PEAKS` bytes: the peaks of equal parts, 255 being full scale.
    """
    magnitudes = np.abs(samples).max(axis=0, initial=0.0)
    starts = np.unique(np.linspace(0, len(magnitudes), PEAKS, endpoint=False, dtype=int))
    peaks = np.maximum.reduceat(magnitudes, starts) if len(magnitudes) else magnitudes
    levels = np.round(255 * np.clip(peaks, 0.0, 1.0)).astype(np.uint8)
    return base64.b64encode(levels.tobytes()).decode("ascii")


class FilePreviews:
    """Copies in `listening/` in a folder, for pages in that folder.

    They are rewritten each time, since existing files may be damaged or untrusted.

    Parameters
    ----------
    folder : Path
        The page's folder; usually the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, table: RunTable, keys: Iterable[str], pictures: MelPictures) -> dict[str, Preview]:
        """Write the copies of all clips with samples, and return their links by key.

        Raises
        ------
        RunFolderUnwritable
            When they cannot be written.
        """
        listening = self._folder / LISTENING_FOLDER
        try:
            if listening.is_symlink():
                listening.unlink()  # nothing is written, or read later, outside the folder
        except OSError as error:
            raise unwritable(self._folder, error) from error
        made = [key for key in keys if key in pictures.by_key]
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # encoders run outside Python's lock
            copies = threads.map(lambda key: self._write(table, key, pictures), made)
            return dict(zip(made, copies, strict=True))

    def _write(self, table: RunTable, key: str, pictures: MelPictures) -> Preview:
        picture = self._file(f"{key}.png", pictures.png(key))
        clip = table.clip(key)
        peaks = encode_peaks(clip.samples)
        content, suffix = encode_preview(clip)
        as_made = self._file(f"{key}{suffix}", content)
        gain_db = matching_gain_db(table, key)
        if not gain_db:
            return Preview(picture, as_made, as_made, peaks)
        content, suffix = encode_preview(clip, gain_db=gain_db)
        matched = self._file(f"{key}.matched{suffix}", content)
        return Preview(picture, as_made, matched, peaks)

    def _file(self, name: str, content: bytes) -> str:
        write_atomically(self._folder / LISTENING_FOLDER / name, content)
        return f"{LISTENING_FOLDER}/{name}"


class EmbeddedPreviews:
    """Copies as data URIs, for notebooks, which then contain them.

    Parameters
    ----------
    matched : bool
        Whether the audio is loudness-matched; only one version is embedded.
    """

    def __init__(self, *, matched: bool) -> None:
        self._matched = matched

    def of(self, table: RunTable, keys: Iterable[str], pictures: MelPictures) -> dict[str, Preview]:
        """Return the copies of all clips with samples, by key.

        Raises
        ------
        InvalidRequest
            When all of them together are more than 32 MB.
        """
        size = 0
        previews = {}
        for key in (key for key in keys if key in pictures.by_key):
            gain_db = matching_gain_db(table, key) if self._matched else 0.0
            clip = table.clip(key)
            content, suffix = encode_preview(clip, gain_db=gain_db)
            picture, sound = data_uri(pictures.png(key), ".png"), data_uri(content, suffix)
            size += len(picture) + len(sound)
            check_embedded(
                size,
                "select fewer clips first, as in results.select(seed=0), or make a report: its "
                "sounds lie beside it",
            )
            previews[key] = Preview(picture, sound, sound, encode_peaks(clip.samples))
        return previews


def check_embedded(size: int, way_out: str) -> None:
    """Reject more embedded data than browsers and editors handle well."""
    if size > EMBEDDED_MB_MAX * 1_000_000:
        raise InvalidRequest(
            f"up to {EMBEDDED_MB_MAX} MB of sounds can be inside one page, and this is more; "
            f"{way_out}"
        )


def matching_gain_db(table: RunTable, key: str) -> float:
    """Return the gain that brings a clip to the common loudness; 0 if it has none.

    Silence has no loudness, and neither have clips shorter than 0.4 s.
    """
    (row,) = table.frame[table.frame["key"] == key].to_dict("records")
    loudness_lufs = float(row["loudness_lufs"])
    return MATCHED_LUFS - loudness_lufs if np.isfinite(loudness_lufs) else 0.0
