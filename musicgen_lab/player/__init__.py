"""The player of clips, `<clip-player>`, and what else every page has: colours and text.

Reports and `results.listen()` contain it. Waveforms are drawn by wavesurfer.js, whose release file
lies here unchanged with its licence (BSD-3-Clause).
"""

from __future__ import annotations

import functools
from pathlib import Path

FOLDER = Path(__file__).parent
BASE_STYLE = FOLDER / "base.css"
WAVESURFER = "wavesurfer-8.0.1.min.js"


@functools.cache
def player_script() -> str:
    """Return the script that defines `<clip-player>`, wavesurfer.js included.

    It is a classic script that defines no global name and may be in a page several times.
    """
    wavesurfer = (FOLDER / WAVESURFER).read_text(encoding="utf-8")
    player = (FOLDER / "player.js").read_text(encoding="utf-8")
    # As a CommonJS module: with an AMD loader on the page, as in notebooks, it would be lost in it.
    return (
        'if (!customElements.get("clip-player")) (() => {\n'
        f"const module = {{exports: {{}}}}, exports = module.exports;\n{wavesurfer}\n"
        f"const WaveSurfer = module.exports;\n{player}}})();\n"
    )


@functools.cache
def base_style() -> str:
    """Return the colours and the text of a page, in light and dark."""
    return BASE_STYLE.read_text(encoding="utf-8")


@functools.cache
def player_style() -> str:
    """Return the style of players and of the grids that they are in."""
    return (FOLDER / "player.css").read_text(encoding="utf-8")
