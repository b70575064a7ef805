"""Captions: what a person might write about a piece of demo music, true of it in every word."""

from __future__ import annotations

import string
from collections.abc import Collection

import numpy as np

from musicgen_lab.demo.composition import TEMPI_BPM, Piece

INSTRUMENT_WORDS: dict[str, tuple[str, ...]] = {
    "piano": ("piano", "grand piano", "keys"),
    "guitar": ("guitar", "acoustic guitar", "plucked guitar"),
    "organ": ("organ", "church organ"),
    "strings": ("strings", "violins", "string ensemble"),
    "flute": ("flute", "wooden flute"),
    "synth": ("synth", "synthesizer", "electronic synth"),
    "bells": ("bells", "chimes", "music box"),
    "brass": ("brass", "trumpet", "horns"),
    "orchestra": ("orchestra", "full orchestra", "symphony orchestra"),
}
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "solo": ("solo", "melody", "tune"),
    "chords": ("chords", "harmony"),
    "arpeggio": ("arpeggio", "arpeggios", "broken chords"),
}
TEMPO_WORDS: dict[int, tuple[str, ...]] = {
    60: ("very slow", "largo"),
    75: ("slow", "relaxed"),
    100: ("medium tempo", "moderate"),
    125: ("fast", "upbeat"),
    150: ("very fast", "frantic"),
}
MODE_WORDS: dict[str, tuple[str, ...]] = {
    "major": ("major", "happy", "cheerful", "in a major key"),
    "minor": ("minor", "sad", "melancholic", "in a minor key"),
}
GENRE_WORDS: dict[str, tuple[str, ...]] = {
    "electronic": ("electronic dance music", "dance music", "electronic", "edm", "house"),
    "techno": ("techno", "trance"),
    "chiptune": ("chiptune", "video game music"),
    "jazz": ("jazz", "jazzy", "swing"),
    "blues": ("blues", "bluesy"),
    "orchestral": ("orchestral music", "epic orchestral music", "cinematic", "epic", "orchestral"),
    "ambient": ("ambient", "ambient pad", "drone"),
    "rock": ("rock", "punk"),
    "metal": ("metal", "heavy metal"),
    "funk": ("funk", "groovy"),
    "folk": ("folk", "country"),
    "classical": ("classical", "baroque"),
    "lullaby": ("lullaby", "bedtime music"),
    "gospel": ("gospel", "hymn", "church music"),
    "march": ("march", "marching band"),
    "lofi": ("lofi", "chillout"),
    "meditation": ("meditation", "spa music"),
}
BRIGHT_WORDS = ("bright", "brilliant", "crisp")
DARK_WORDS = ("dark", "mellow", "muffled")
LOUD_WORDS = ("loud", "powerful", "energetic")
QUIET_WORDS = ("quiet", "soft", "gentle")
CALM_WORDS = ("calm", "peaceful")  # quiet, slow and without drums
DRUM_WORDS = ("drums", "a drum beat", "percussion")
NO_DRUM_WORDS = ("without drums", "no drums")
BASS_WORDS = ("heavy bass", "bass", "deep bass")
NEUTRAL_WORDS = (
    "music",
    "song",
    "track",
    "piece",
    "a",
    "an",
    "the",
    "with",
    "and",
    "of",
    "in",
    "at",
    "for",
    "played",
    "on",
    "beautiful",
    "bpm",
)
TEMPO_NUMBERS = tuple(range(55, 161, 5))

GENRE_NAMED = 0.85  # of the pieces that a genre chose
NAMED = 0.8  # of the other attributes
NOISY = 0.3  # captions with unknown words in them


def write_caption(piece: Piece, rng: np.random.Generator) -> str:
    """Write a caption that names some of a piece's attributes.

    Parameters
    ----------
    piece : Piece
    rng : np.random.Generator
        Chooses what is named, and how.

    Returns
    -------
    str
        In three of ten captions with words that mean nothing, so that a model learns to pass
        over what it does not know.
    """

    def pick(words: tuple[str, ...]) -> str:
        return words[rng.integers(len(words))]

    genre = piece.genre if rng.random() < GENRE_NAMED else None
    named = NAMED if genre is None else 0.6 * NAMED

    def name() -> bool:
        return bool(rng.random() < named)

    calm = not piece.loud and piece.tempo_bpm <= 75 and not piece.drums
    front: list[str] = []
    if calm and name():
        front.append(pick(CALM_WORDS))
    else:
        if name():
            front.append(_tempo_words(piece.tempo_bpm, rng))
        if name():
            front.append(pick(LOUD_WORDS if piece.loud else QUIET_WORDS))
    if name():
        front.append(pick(BRIGHT_WORDS if piece.bright else DARK_WORDS))
    if name():
        front.append(pick(MODE_WORDS[piece.mode]))
    front = [front[i] for i in rng.permutation(len(front))]
    if genre is not None:
        front.append(pick(GENRE_WORDS[genre]))
    if genre is None or name():
        front.append(pick(INSTRUMENT_WORDS[piece.instrument]))
    if name():
        front.append(pick(TEXTURE_WORDS[piece.texture]))
    extras = []
    if piece.bass and name():
        extras.append(pick(BASS_WORDS))
    if piece.drums and name():
        extras.append(pick(DRUM_WORDS))
    caption = " ".join(front)
    if extras:
        caption += " with " + " and ".join(extras)
    elif not piece.drums and rng.random() < 0.2:
        caption += " " + pick(NO_DRUM_WORDS)
    if rng.random() < 0.15:
        caption += f" at {_bpm(piece.tempo_bpm, rng)} bpm"
    return _roughen(caption, rng)


def write_prompt(piece: Piece, named: Collection[str]) -> str:
    """Write a plain prompt that names the attributes given and no others.

    Parameters
    ----------
    piece : Piece
    named : collection of str
        Names of `Piece`'s attributes.

    Returns
    -------
    str
        Such as "slow dark minor piano melody with drums".
    """
    words = {
        "tempo_bpm": TEMPO_WORDS[piece.tempo_bpm][0],
        "loud": (LOUD_WORDS if piece.loud else QUIET_WORDS)[0],
        "bright": (BRIGHT_WORDS if piece.bright else DARK_WORDS)[0],
        "mode": MODE_WORDS[piece.mode][0],
        "instrument": INSTRUMENT_WORDS[piece.instrument][0],
        "texture": TEXTURE_WORDS[piece.texture][0],
        "drums": "with drums" if piece.drums else NO_DRUM_WORDS[0],
    }
    return " ".join(word for name, word in words.items() if name in named)


def _tempo_words(tempo_bpm: int, rng: np.random.Generator) -> str:
    words = TEMPO_WORDS[tempo_bpm]
    choice = rng.integers(len(words) + 1)
    return f"{_bpm(tempo_bpm, rng)} bpm" if choice == len(words) else words[choice]


def _bpm(tempo_bpm: int, rng: np.random.Generator) -> int:
    """Return the tempo, or sometimes a number to which it is the nearest one there is."""
    if rng.random() < 0.6:
        return tempo_bpm
    near = [n for n in TEMPO_NUMBERS if min(TEMPI_BPM, key=lambda t: abs(t - n)) == tempo_bpm]
    return int(rng.choice(near))


def _roughen(caption: str, rng: np.random.Generator) -> str:
    """Add neutral and unknown words, and capitals, as people do."""
    words = caption.split()
    if rng.random() < 0.35:
        words.append(str(rng.choice(("music", "song", "track", "piece"))))
    if rng.random() < 0.15:
        words.insert(0, str(rng.choice(("a", "the", "beautiful"))))
    if rng.random() < NOISY:
        for _ in range(rng.integers(1, 3)):
            words.insert(int(rng.integers(len(words) + 1)), _unknown_word(rng))
    text = " ".join(words)
    return text[0].upper() + text[1:] if rng.random() < 0.1 else text


def _unknown_word(rng: np.random.Generator) -> str:
    """Make up a word that can be spoken, nearly."""
    consonants = [c for c in string.ascii_lowercase if c not in "aeiouy"]
    syllables = [
        str(rng.choice(consonants)) + str(rng.choice(list("aeiouy")))
        for _ in range(rng.integers(1, 4))
    ]
    return "".join(syllables) + str(rng.choice(["", *consonants]))


def vocabulary() -> list[str]:
    """Return every word that captions are written with, sorted."""
    groups: list[tuple[str, ...]] = [
        *INSTRUMENT_WORDS.values(),
        *TEXTURE_WORDS.values(),
        *TEMPO_WORDS.values(),
        *MODE_WORDS.values(),
        *GENRE_WORDS.values(),
        BRIGHT_WORDS,
        DARK_WORDS,
        LOUD_WORDS,
        QUIET_WORDS,
        CALM_WORDS,
        DRUM_WORDS,
        NO_DRUM_WORDS,
        BASS_WORDS,
        NEUTRAL_WORDS,
        tuple(str(number) for number in TEMPO_NUMBERS),
    ]
    return sorted({word for group in groups for phrase in group for word in phrase.split()})
