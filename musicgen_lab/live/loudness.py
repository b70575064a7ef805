"""The gain that makes a clip as loud as the others, for the live page."""

from __future__ import annotations

import importlib.util
import math

from musicgen_lab.clip import Clip


def matched_gain_db(clip: Clip) -> float | None:
    """Return the gain to the loudness of matched copies; None where it cannot be measured.

    Silence has no loudness, and the web image on Modal lacks the package that measures it.
    """
    if importlib.util.find_spec("pyloudnorm") is None:
        return None
    from musicgen_lab.analysis.levels import loudness_lufs
    from musicgen_lab.analysis.sound import Sound
    from musicgen_lab.listening.previews import MATCHED_LUFS

    measured = loudness_lufs(Sound(clip.samples, clip.sample_rate))
    return round(MATCHED_LUFS - measured, 2) if math.isfinite(measured) else None
