"""Small copies of clips to listen to, with their pictures: as files beside a page, or inside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.mel_pictures import MelPictures
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.runs.run_table import RunTable

LISTENING_FOLDER = "listening"
MP3_SAMPLE_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MATCHED_LUFS = -23.0
"""The loudness of matched copies (EBU R 128): so low that few clips would go beyond full scale."""

EMBEDDED_MB_MAX = 32
"""What may be put inside one page or notebook."""

TYPES = {".mp3": "audio/mpeg", ".wav": "audio/wav", ".png": "image/png"}


@dataclass(frozen=True)
class Preview:
    """A clip's files for a page, each as a link or a data URI.

    Attributes
    ----------
    picture : str
        Its mel spectrogram.
    as_made : str
        Its sound at its own level, or just so much quieter that it does not clip.
    matched : str
        Its sound at the same loudness as all others; the same as `as_made` where it is silent.
    """

    picture: str
    as_made: str
    matched: str


def encode_preview(clip: Clip, *, gain_db: float = 0.0) -> tuple[bytes, str]:
    """Encode a clip for players, or just so much quieter that it does not clip.

    Parameters
    ----------
    clip : Clip
    gain_db : float
        How much louder than it was made.

    Returns
    -------
    content : bytes
    suffix : str
        ".mp3"; or ".wav", in 16 bits, where MP3 knows no such sample rate or number of channels.
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


class FilePreviews:
    """Copies in `listening/` of a folder, for pages that lie in it.

    Parameters
    ----------
    folder : Path
        Where the page lies; the run folder, as a rule.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, table: RunTable, key: str, pictures: MelPictures) -> Preview:
        """Write a clip's copies and return their links.

        Raises
        ------
        RunFolderUnwritable
            When they cannot be written.
        """
        write_atomically(self._folder / LISTENING_FOLDER / f"{key}.png", pictures.png(key))
        as_made = self._sound(table, key, "", 0.0)
        gain_db = matching_gain_db(table, key)
        matched = self._sound(table, key, ".matched", gain_db) if gain_db else as_made
        return Preview(f"{LISTENING_FOLDER}/{key}.png", as_made, matched)

    def _sound(self, table: RunTable, key: str, kind: str, gain_db: float) -> str:
        for suffix in (".mp3", ".wav"):
            link = f"{LISTENING_FOLDER}/{key}{kind}{suffix}"
            if (self._folder / link).exists():  # a clip never changes, and neither does its copy
                return link
        content, suffix = encode_preview(table.clip(key), gain_db=gain_db)
        link = f"{LISTENING_FOLDER}/{key}{kind}{suffix}"
        write_atomically(self._folder / link, content)
        return link


class EmbeddedPreviews:
    """Copies as data URIs, for notebooks: they go where the notebook goes.

    Parameters
    ----------
    matched : bool
        Whether the sound is loudness-matched; only one of both is embedded.
    """

    def __init__(self, *, matched: bool) -> None:
        self._matched = matched
        self._bytes = 0

    def of(self, table: RunTable, key: str, pictures: MelPictures) -> Preview:
        """Return a clip's copies.

        Raises
        ------
        InvalidRequest
            When all of them together are more than 32 MB.
        """
        gain_db = matching_gain_db(table, key) if self._matched else 0.0
        content, suffix = encode_preview(table.clip(key), gain_db=gain_db)
        picture, sound = data_uri(pictures.png(key), ".png"), data_uri(content, suffix)
        self._bytes += len(picture) + len(sound)
        check_embedded(
            self._bytes,
            "select fewer clips first, as in results.select(seed=0), or make a report: its sounds "
            "lie beside it",
        )
        return Preview(picture, sound, sound)


def check_embedded(size: int, way_out: str) -> None:
    """Refuse to put more inside a page than browsers and editors handle well."""
    if size > EMBEDDED_MB_MAX * 1_000_000:
        raise InvalidRequest(
            f"up to {EMBEDDED_MB_MAX} MB of sounds can be inside one page, and this is more; "
            f"{way_out}"
        )


def data_uri(content: bytes, suffix: str) -> str:
    """Return a file's content as a link that holds it."""
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"


def matching_gain_db(table: RunTable, key: str) -> float:
    """Return the gain that brings a clip to the common loudness; 0 where there is none.

    Silence has no loudness, nor has what is shorter than 0.4 s.
    """
    (row,) = table.frame[table.frame["key"] == key].to_dict("records")
    loudness_lufs = float(row["loudness_lufs"])
    return MATCHED_LUFS - loudness_lufs if np.isfinite(loudness_lufs) else 0.0
