"""The pieces that the demo model is trained on: genres as sets of attributes, and free mixtures."""

from __future__ import annotations

from typing import Any

import numpy as np

from musicgen_lab.demo.composition import INSTRUMENTS, MODES, TEMPI_BPM, TEXTURES, Piece

GENRES: dict[str, dict[str, tuple[Any, ...]]] = {
    "electronic": {
        "instrument": ("synth",),
        "tempo_bpm": (125,),
        "texture": ("chords", "arpeggio"),
        "drums": (True,),
        "bass": (True,),
        "bright": (True,),
        "loud": (True,),
    },
    "techno": {
        "instrument": ("synth",),
        "tempo_bpm": (150,),
        "mode": ("minor",),
        "texture": ("arpeggio",),
        "drums": (True,),
        "bass": (True,),
        "loud": (True,),
    },
    "chiptune": {
        "instrument": ("synth",),
        "tempo_bpm": (150,),
        "mode": ("major",),
        "texture": ("solo", "arpeggio"),
        "drums": (False,),
        "bass": (False,),
        "bright": (True,),
    },
    "jazz": {
        "instrument": ("piano", "brass", "guitar"),
        "tempo_bpm": (100, 125),
        "bright": (True,),
        "swing": (True,),
    },
    "blues": {
        "instrument": ("guitar",),
        "tempo_bpm": (75, 100),
        "mode": ("minor",),
        "swing": (True,),
    },
    "orchestral": {
        "instrument": ("orchestra",),
        "texture": ("chords",),
        "drums": (False,),
        "bass": (False,),
        "loud": (True,),
    },
    "ambient": {
        "instrument": ("strings",),
        "tempo_bpm": (60,),
        "texture": ("chords",),
        "drums": (False,),
        "bass": (False,),
        "bright": (False,),
        "loud": (False,),
    },
    "rock": {
        "instrument": ("guitar",),
        "tempo_bpm": (125, 150),
        "texture": ("chords",),
        "drums": (True,),
        "bass": (True,),
        "bright": (True,),
        "loud": (True,),
    },
    "metal": {
        "instrument": ("guitar",),
        "tempo_bpm": (150,),
        "mode": ("minor",),
        "texture": ("arpeggio",),
        "drums": (True,),
        "bass": (True,),
        "loud": (True,),
    },
    "funk": {
        "instrument": ("guitar",),
        "tempo_bpm": (100,),
        "texture": ("arpeggio",),
        "drums": (True,),
        "bass": (True,),
        "bright": (True,),
    },
    "folk": {
        "instrument": ("guitar", "flute"),
        "mode": ("major",),
        "texture": ("solo", "arpeggio"),
        "drums": (False,),
        "bass": (False,),
    },
    "classical": {
        "instrument": ("piano", "strings"),
        "texture": ("arpeggio", "solo"),
        "drums": (False,),
        "bass": (False,),
    },
    "lullaby": {
        "instrument": ("bells",),
        "tempo_bpm": (60, 75),
        "mode": ("major",),
        "texture": ("solo",),
        "drums": (False,),
        "bass": (False,),
        "loud": (False,),
    },
    "gospel": {
        "instrument": ("organ",),
        "tempo_bpm": (60, 75),
        "mode": ("major",),
        "texture": ("chords",),
        "drums": (False,),
        "loud": (True,),
    },
    "march": {
        "instrument": ("brass",),
        "tempo_bpm": (125,),
        "mode": ("major",),
        "drums": (True,),
        "loud": (True,),
    },
    "lofi": {
        "instrument": ("piano",),
        "tempo_bpm": (75,),
        "texture": ("chords",),
        "drums": (True,),
        "bright": (False,),
        "loud": (False,),
    },
    "meditation": {
        "instrument": ("flute",),
        "tempo_bpm": (60,),
        "texture": ("solo",),
        "drums": (False,),
        "bass": (False,),
        "loud": (False,),
    },
}
"""Genre word to the values that each attribute may have; what is not named is free."""

GENRE_SHARE = 0.45  # of pieces; the others mix their attributes freely


def draw_piece(rng: np.random.Generator, *, held_out: bool = False) -> Piece:
    """Draw the attributes of a piece.

    Parameters
    ----------
    rng : np.random.Generator
    held_out : bool
        Draw one of the combinations that are never trained on, instead of one that is.

    Returns
    -------
    Piece
    """
    while True:
        genre = str(rng.choice(list(GENRES))) if rng.random() < GENRE_SHARE else None
        piece = _fill(GENRES.get(genre or "", {}), genre, rng)
        if piece.held_out == held_out:
            return piece


def _fill(bundle: dict[str, tuple[Any, ...]], genre: str | None, rng: np.random.Generator) -> Piece:
    """Choose every attribute, within a genre's bundle."""

    def choose(name: str, values: tuple[Any, ...]) -> Any:
        allowed = bundle.get(name, values)
        return allowed[rng.integers(len(allowed))]

    instrument = choose("instrument", INSTRUMENTS)
    drums = choose("drums", (True, False, False))
    return Piece(
        instrument=instrument,
        tempo_bpm=choose("tempo_bpm", TEMPI_BPM),
        mode=choose("mode", MODES),
        texture="chords" if instrument == "orchestra" else choose("texture", TEXTURES),
        drums=drums,
        bass=choose("bass", (True, False) if drums else (False,)),
        bright=choose("bright", (True, False)),
        loud=choose("loud", (True, False)),
        swing=choose("swing", (False,)),
        genre=genre,
    )
