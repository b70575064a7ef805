"""The gain that makes a clip as loud as the others, for the live page."""

from __future__ import annotations

import importlib.util
import math

from musicgen_lab.clip import Clip


def can_match() -> bool:
    """Return whether loudness can be measured: the web image on Modal lacks the package."""
    return importlib.util.find_spec("pyloudnorm") is not None


def matched_gain_db(clip: Clip) -> float | None:
    """Return the gain to the loudness of matched copies; None where it cannot be measured.

    Silence has no loudness.
    """
    if not can_match():
        return None
    from musicgen_lab.analysis.levels import loudness_lufs
    from musicgen_lab.analysis.sound import Sound
    from musicgen_lab.listening.previews import MATCHED_LUFS

    measured = loudness_lufs(Sound(clip.samples, clip.sample_rate))
    return round(MATCHED_LUFS - measured, 2) if math.isfinite(measured) else None
