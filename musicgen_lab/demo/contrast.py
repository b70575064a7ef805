"""`Contrast`: captions in pairs that differ in one attribute; a clip fits only the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from musicgen_lab.demo.captions import write_caption
from musicgen_lab.demo.composition import INSTRUMENTS, MODES, TEMPI_BPM, TEXTURES, Piece

_CHANGES: dict[str, tuple[float, tuple[Any, ...]]] = {  # how often each is the one, and its values
    "tempo_bpm": (0.5, TEMPI_BPM),
    "mode": (0.4, MODES),
    "texture": (0.02, TEXTURES),
    "instrument": (0.02, INSTRUMENTS),
    "drums": (0.02, (False, True)),
    "bright": (0.02, (False, True)),
    "loud": (0.02, (False, True)),
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
    names, shares = list(_CHANGES), [share for share, _ in _CHANGES.values()]
    own, other = [], []
    for piece in pieces:
        name = str(rng.choice(names, p=shares))
        values = [value for value in _CHANGES[name][1] if value != getattr(piece, name)]
        plain = replace(piece, genre=None)
        changed = replace(plain, **{name: values[rng.integers(len(values))]})
        words = int(rng.integers(2**32))  # both captions choose alike
        own.append(write_caption(plain, np.random.default_rng(words)))
        other.append(write_caption(changed, np.random.default_rng(words)))
    return Contrast(own, other)
