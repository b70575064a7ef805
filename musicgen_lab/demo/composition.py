"""Composition: the attributes of a piece of demo music, and its notes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

INSTRUMENTS = (
    "piano",
    "guitar",
    "organ",
    "strings",
    "flute",
    "synth",
    "bells",
    "brass",
    "orchestra",
)
TEMPI_BPM = (60, 75, 100, 125, 150)  # a half beat is a whole number of codec frames
MODES = ("major", "minor")
TEXTURES = ("solo", "chords", "arpeggio")
ATTRIBUTES: dict[str, tuple[Any, ...]] = {
    "instrument": INSTRUMENTS,
    "tempo_bpm": TEMPI_BPM,
    "mode": MODES,
    "texture": TEXTURES,
    "drums": (False, True),
    "bass": (False, True),
    "bright": (False, True),
    "loud": (False, True),
    "swing": (False, True),
}
"""The attributes of a piece and their possible values."""

# Semitones above C, near enough to each other that pitch classes tell the mode without the key.
TONICS = (0, 5, 7)
FRAMES_PER_MINUTE = 3000
EIGHTHS_PER_BAR = 8

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}  # natural minor
# Progressions of scale degrees that keep to triads which tell the mode.
_PROGRESSIONS = ((0, 3, 4, 0), (0, 0, 3, 4), (0, 3, 0, 4))
_CHORD_RHYTHMS = ((0, 4), (0, 2, 4, 6), (0, 3, 6))
_MELODY_RHYTHMS = ((0, 2, 4, 6), (0, 2, 3, 4, 6), (0, 1, 2, 4, 6, 7), (0, 3, 4, 6))
_ARPEGGIOS = ((0, 1, 2, 3, 2, 1, 2, 1), (0, 1, 2, 3, 0, 1, 2, 3), (3, 2, 1, 0, 3, 2, 1, 0))


@dataclass(frozen=True)
class Piece:
    """The attributes of a piece of music: what a caption may say about it.

    Attributes
    ----------
    instrument : str
        One of `INSTRUMENTS`.
    tempo_bpm : int
        One of `TEMPI_BPM`.
    mode : {"major", "minor"}
    texture : {"solo", "chords", "arpeggio"}
    drums, bass : bool
        Whether there are any.
    bright, loud : bool
        Otherwise dark, and 8 dB quieter.
    swing : bool
        Whether off-beats come late, as in jazz.
    genre : str or None
        The genre word that chose the other attributes, where one did.
    """

    instrument: str
    tempo_bpm: int
    mode: str
    texture: str
    drums: bool
    bass: bool
    bright: bool
    loud: bool
    swing: bool = False
    genre: str | None = None

    @property
    def beat_frames(self) -> int:
        """Length of a beat in codec frames."""
        return FRAMES_PER_MINUTE // self.tempo_bpm

    @property
    def bar_frames(self) -> int:
        """Length of a bar in codec frames."""
        return EIGHTHS_PER_BAR // 2 * self.beat_frames

    @property
    def held_out(self) -> bool:
        """Whether this combination of instrument, tempo and mode is never trained on."""
        row = INSTRUMENTS.index(self.instrument)
        tempo = TEMPI_BPM[(2 * row + 1) % len(TEMPI_BPM)]
        return (self.tempo_bpm, self.mode) == (tempo, MODES[row % 2])


@dataclass(frozen=True)
class Note:
    """One note or stroke.

    Attributes
    ----------
    frame : int
        Codec frame of its start.
    frames : int
        Its length in codec frames.
    sound : str
        An instrument or a drum.
    midi : int
        MIDI note number; 0 for drums.
    gain : float
        Linear.
    """

    frame: int
    frames: int
    sound: str
    midi: int
    gain: float


@dataclass(frozen=True)
class _Outline:
    """What the parts of a piece share: its time, its scale and its chords.

    Attributes
    ----------
    piece : Piece
    tonic : int
        Semitones above C.
    progression : tuple of int
        The degrees of the scale on which the bars' chords stand, again and again.
    bars : int
    """

    piece: Piece
    tonic: int
    progression: tuple[int, ...]
    bars: int

    def frame(self, bar: int, eighth: int) -> int:
        """Return the codec frame at which an eighth falls."""
        beats, off = divmod(bar * EIGHTHS_PER_BAR + eighth, 2)
        beat = self.piece.beat_frames
        return beats * beat + off * round(beat * (2 / 3 if self.piece.swing else 1 / 2))

    def lengths(self, bar: int, rhythm: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return (frame, frames) of a bar's rhythm, each note up to the next one."""
        starts = [self.frame(bar, eighth) for eighth in rhythm] + [self.frame(bar + 1, 0)]
        return [(start, end - start) for start, end in pairwise(starts)]

    def root(self, bar: int) -> int:
        """Return the degree on which a bar's chord stands."""
        return self.progression[bar % len(self.progression)]

    def pitch(self, degree: int, lowest: int) -> int:
        """Return the MIDI number of a scale degree, counted from the tonic at or above `lowest`."""
        octave, step = divmod(degree, 7)
        base = lowest + (self.tonic - lowest) % 12
        return base + 12 * octave + _SCALES[self.piece.mode][step]


def compose(piece: Piece, frames: int, rng: np.random.Generator) -> list[Note]:
    """Write a piece of a given length.

    Parameters
    ----------
    piece : Piece
    frames : int
        Length in codec frames of 20 ms.
    rng : np.random.Generator
        Chooses key, progression, rhythm and melody.

    Returns
    -------
    list of Note
        The first one starts at frame 0.
    """
    outline = _Outline(
        piece,
        tonic=int(rng.choice(TONICS)),
        progression=_PROGRESSIONS[rng.integers(len(_PROGRESSIONS))],
        bars=-(-frames // piece.bar_frames),
    )
    notes: list[Note] = []
    rhythm: tuple[int, ...]
    if piece.instrument == "orchestra":
        parts, rhythm = [("strings", "chords", 0.55), ("brass", "solo", 0.8)], (0,)
        notes += _timpani(outline)
    else:
        parts = [(piece.instrument, piece.texture, 1.0)]
        rhythm = _CHORD_RHYTHMS[rng.integers(len(_CHORD_RHYTHMS))]
    for sound, texture, gain in parts:
        if texture == "solo":
            notes += _melody(outline, sound, gain, rng)
        elif texture == "chords":
            notes += _chords(outline, sound, gain, rhythm)
        else:
            notes += _arpeggio(outline, sound, gain, rng)
    if piece.bass:
        notes += _bass(outline, rng)
    if piece.drums:
        notes += _drums(outline, rng)
    return sorted((note for note in notes if note.frame < frames), key=lambda note: note.frame)


def _chords(outline: _Outline, sound: str, gain: float, rhythm: tuple[int, ...]) -> list[Note]:
    notes = []
    for bar in range(outline.bars):
        for frame, frames in outline.lengths(bar, rhythm):
            for third in (0, 2, 4):
                midi = outline.pitch(outline.root(bar) + third, 52)
                # Chords stay within one octave, so that few notes have to be learnt.
                midi -= 12 * (midi > 69)
                notes.append(Note(frame, frames, sound, midi, 0.45 * gain))
    return notes


def _arpeggio(outline: _Outline, sound: str, gain: float, rng: np.random.Generator) -> list[Note]:
    pattern = _ARPEGGIOS[rng.integers(len(_ARPEGGIOS))]
    degrees = (0, 2, 4, 7)
    notes = []
    for bar in range(outline.bars):
        for eighth, (frame, frames) in enumerate(outline.lengths(bar, tuple(range(8)))):
            midi = outline.pitch(outline.root(bar) + degrees[pattern[eighth]], 55)
            notes.append(Note(frame, frames, sound, midi - 12 * (midi > 79), 0.75 * gain))
    return notes


def _melody(outline: _Outline, sound: str, gain: float, rng: np.random.Generator) -> list[Note]:
    """Return a tune: chord notes on the beats one and three, steps between them."""
    rhythm = _MELODY_RHYTHMS[rng.integers(len(_MELODY_RHYTHMS))]
    notes = []
    degree = 0
    for bar in range(outline.bars):
        for eighth, (frame, frames) in zip(rhythm, outline.lengths(bar, rhythm), strict=True):
            if eighth % 4 == 0:  # the third, which tells the mode, more often than the others
                degree = outline.root(bar) + int(rng.choice((0, 2, 4), p=(0.3, 0.5, 0.2)))
            else:
                degree += int(rng.choice((-2, -1, 1, 2), p=(0.2, 0.3, 0.3, 0.2)))
            degree = min(max(degree, 0), 9)
            midi = outline.pitch(degree, 60)
            notes.append(Note(frame, frames, sound, midi - 12 * (midi > 84), 0.9 * gain))
    return notes


def _bass(outline: _Outline, rng: np.random.Generator) -> list[Note]:
    rhythm = _CHORD_RHYTHMS[rng.integers(2)]
    notes = []
    for bar in range(outline.bars):
        midi = outline.pitch(outline.root(bar), 36)
        for frame, frames in outline.lengths(bar, rhythm):
            notes.append(Note(frame, frames, "bass", midi - 12 * (midi > 47), 0.9))
    return notes


def _timpani(outline: _Outline) -> list[Note]:
    return [
        Note(outline.frame(bar, eighth), 25, "timpani", 0, 0.35)
        for bar in range(outline.bars)
        for eighth in (0, 6)
    ]


def _drums(outline: _Outline, rng: np.random.Generator) -> list[Note]:
    """Return a beat: snare on two and four, a kick on every beat or on one and three."""
    kicks = (0, 2, 4, 6) if rng.random() < 0.5 else (0, 4)
    strokes = [("kick", kicks, 0.4), ("snare", (2, 6), 0.32), ("hat", (1, 3, 5, 7), 0.2)]
    return [
        Note(outline.frame(bar, eighth), 20, drum, 0, gain)
        for bar in range(outline.bars)
        for drum, eighths, gain in strokes
        for eighth in eighths
    ]
