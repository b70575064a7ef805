"""`Contrast`: captions in pairs that differ in one attribute; a clip fits only the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from musicgen_lab.demo.captions import write_caption
from musicgen_lab.demo.composition import ATTRIBUTES, Piece

_SHARES = {  # how often each is the one
    "tempo_bpm": 0.5,
    "mode": 0.4,
    "texture": 0.02,
    "instrument": 0.02,
    "drums": 0.02,
    "bright": 0.02,
    "loud": 0.02,
}


@dataclass(frozen=True)
class Contrast:
    """Captions in pairs, one pair per clip.

    Attributes
    ----------
    own : list of str
        True of the clip.
    other : list of str
        The same but for one attribute, where the caption names it.
    """

    own: list[str]
    other: list[str]


def draw_contrast(pieces: Sequence[Piece], rng: np.random.Generator) -> Contrast:
    """Write a pair of captions for each piece, without genre words, which name many attributes.

    Parameters
    ----------
    pieces : sequence of Piece
    rng : np.random.Generator

    Returns
    -------
    Contrast
    """
    names, shares = list(_SHARES), list(_SHARES.values())
    own, other = [], []
    for piece in pieces:
        name = str(rng.choice(names, p=shares))
        values = [value for value in ATTRIBUTES[name] if value != getattr(piece, name)]
        plain = replace(piece, genre=None)
        changed = replace(plain, **{name: values[rng.integers(len(values))]})
        words = int(rng.integers(2**32))  # both captions choose alike
        own.append(write_caption(plain, np.random.default_rng(words)))
        other.append(write_caption(changed, np.random.default_rng(words)))
    return Contrast(own, other)
