"""The synthesiser: attributes of a piece of music in, samples out, within milliseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicgen_lab.demo.composition import Note, Piece, compose
from musicgen_lab.demo.instruments import DRUMS, FRAME_SAMPLES, SAMPLE_RATE, play_drum, play_note

Samples = npt.NDArray[np.float32]

LOUD_GAIN, QUIET_GAIN = 0.6, 0.24  # 8 dB apart


def synthesise(piece: Piece, duration_s: float, rng: np.random.Generator) -> Samples:
    """Compose and play a piece.

    Parameters
    ----------
    piece : Piece
    duration_s : float
        In seconds; music to the end, where it is cut.
    rng : np.random.Generator
        Chooses what the attributes leave open, such as key and melody.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
        32 kHz mono; peaks stay within full scale.

    Examples
    --------
    >>> piece = Piece("piano", 100, "major", "solo", False, False, True, True)
    >>> synthesise(piece, 2.0, np.random.default_rng(0)).shape
    (64000,)
    """
    samples = round(duration_s * SAMPLE_RATE)
    frames = -(-samples // FRAME_SAMPLES)
    notes = compose(piece, frames, rng)
    mix = play(notes, samples, bright=piece.bright)
    return mix * np.float32(LOUD_GAIN if piece.loud else QUIET_GAIN)


def play(notes: list[Note], samples: int, *, bright: bool) -> Samples:
    """Play notes into one mono track.

    Parameters
    ----------
    notes : list of Note
    samples : int
        Length of the track; what sounds beyond it is cut.
    bright : bool
        Otherwise dark.

    Returns
    -------
    np.ndarray [shape=(samples,), dtype=float32]
    """
    track = np.zeros(samples, dtype=np.float32)
    for note in notes:
        start = note.frame * FRAME_SAMPLES
        if note.sound in DRUMS:
            sound = play_drum(note.sound, bright)
        else:
            length_s = note.frames * FRAME_SAMPLES / SAMPLE_RATE
            sound = play_note(note.sound, note.midi, length_s, bright)
        heard = sound[: max(0, samples - start)]
        track[start : start + len(heard)] += note.gain * heard
    return track
