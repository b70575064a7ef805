"""The training data of the language model: pieces, their audio, and its tokens."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from musicgen_lab.demo.composition import Piece
from musicgen_lab.demo.instruments import FRAME_SAMPLES, SAMPLE_RATE
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.synthesiser import synthesise
from musicgen_lab.runs.atomic_io import write_atomically

CLIPS_PER_SHARD = 60


@dataclass(frozen=True)
class DatasetSize:
    """The number of clips in the training data.

    Attributes
    ----------
    short, short_s : int, float
        Clips of the usual length, and that length in seconds.
    long, long_s : int, float
        Clips of the maximum length.
    seed : int
    """

    short: int = 7200
    short_s: float = 6.0
    long: int = 240
    long_s: float = 30.0
    seed: int = 2


@dataclass(frozen=True)
class TokenClip:
    """One clip as the language model sees it.

    Attributes
    ----------
    piece : Piece
    codes : np.ndarray [shape=(K, frames), dtype=int16]
    """

    piece: Piece
    codes: npt.NDArray[np.int16]


def synthesise_shards(folder: Path, size: DatasetSize) -> list[Path]:
    """Synthesise all clips, a shard at a time; shards that are there already are kept.

    Parameters
    ----------
    folder : Path
        Gets `clips-000.npz` and so on: `samples` (clips, n) of int16, `pieces` in JSON.
    size : DatasetSize

    Returns
    -------
    list of Path
    """
    shards = []
    for name, count, duration_s in (
        ("long", size.long, size.long_s),
        ("short", size.short, size.short_s),
    ):
        for first in tqdm(range(0, count, CLIPS_PER_SHARD), desc=f"{name} clips", unit="shard"):
            path = folder / f"{name}-{first:05d}.npz"
            shards.append(path)
            if not path.is_file():
                rng = np.random.default_rng((size.seed, len(name), first))
                _write_shard(path, min(CLIPS_PER_SHARD, count - first), duration_s, rng)
    return shards


def _write_shard(path: Path, clips: int, duration_s: float, rng: np.random.Generator) -> None:
    pieces = [draw_piece(rng) for _ in range(clips)]
    samples = np.stack([synthesise(piece, duration_s, rng) for piece in pieces])
    buffer = io.BytesIO()
    np.savez(
        buffer,
        samples=np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16),
        pieces=json.dumps([dataclasses.asdict(piece) for piece in pieces]),
    )
    write_atomically(path, buffer.getvalue())


@torch.no_grad()
def tokenise(shards: list[Path], codec: Any, out: Path, device: torch.device) -> None:
    """Encode shards of clips into tokens, once.

    Parameters
    ----------
    shards : list of Path
        From `synthesise_shards`.
    codec : audiocraft.models.EncodecModel
    out : Path
        Folder that gets one file of tokens per shard.
    device : torch.device
    """
    for shard in tqdm(shards, desc="tokenising", unit="shard"):
        path = out / shard.name
        if path.is_file():
            continue
        with np.load(shard) as stored:
            sound, pieces = stored["samples"], str(stored["pieces"])
        at_once = max(1, round(60 * SAMPLE_RATE / sound.shape[1]))  # a minute of sound
        codes = []
        for first in range(0, len(sound), at_once):
            batch = torch.from_numpy(sound[first : first + at_once].astype(np.float32) / 32767)
            encoded, _ = codec.encode(batch.unsqueeze(1).to(device))  # (B, K, frames)
            codes.append(encoded.cpu().numpy().astype(np.int16))
        frames = sound.shape[1] // FRAME_SAMPLES
        buffer = io.BytesIO()
        np.savez(buffer, codes=np.concatenate(codes)[..., :frames], pieces=pieces)
        write_atomically(path, buffer.getvalue())


def load_tokens(folder: Path) -> list[TokenClip]:
    """Read what `tokenise` wrote."""
    clips = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            pieces = [Piece(**fields) for fields in json.loads(str(stored["pieces"]))]
            clips += [TokenClip(*each) for each in zip(pieces, stored["codes"], strict=True)]
    return clips
