"""One clip in a listening grid: its picture, its values and its player, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from musicgen_lab.figures.facets import Panel
from musicgen_lab.figures.mel_pictures import PICTURE_HEIGHT, PICTURE_WIDTH
from musicgen_lab.formatting import value_with_unit
from musicgen_lab.listening.previews import ListeningCopy


@dataclass(frozen=True)
class ClipCells:
    """How each clip of a listening page is shown.

    Attributes
    ----------
    copies : Mapping of str to ListeningCopy
        By the clip's key; those without samples have none.
    features : tuple of str
        Whose values stand under each player.
    """

    copies: Mapping[str, ListeningCopy]
    features: tuple[str, ...]

    def show(self, panel: Panel) -> str:
        """Return one clip's picture, label and player, or what stands in its place."""
        label = escape(panel.label or "the clip", quote=True)
        caption = f"<figcaption>{label}"
        record = panel.record
        if record is None:
            return f'<figure class="missing"><div>not made yet</div>{caption}</figcaption></figure>'
        if panel.status == "failed":
            error = escape(str(record["error"]))
            return (
                f'<figure class="failed"><div>failed</div>{caption} <em>{error}</em></figcaption>'
                "</figure>"
            )
        copy = self.copies.get(record["key"])
        if copy is None:
            return f'<figure class="missing"><div>no samples</div>{caption}</figcaption></figure>'
        notes = _notes(record)
        said = f" <em>{escape('; '.join(notes))}</em>" if notes else ""
        matched = f' data-matched="{copy.matched}"' if copy.matched != copy.as_made else ""
        lazy = "" if copy.picture.startswith("data:") else 'loading="lazy" '
        return (
            f'<figure><img src="{copy.picture}" {lazy}'
            f'width="{PICTURE_WIDTH}" height="{PICTURE_HEIGHT}" '
            f'alt="Mel spectrogram: {label}{escape("; " + "; ".join(notes)) if notes else ""}">'
            f'<audio controls preload="none" src="{copy.as_made}"{matched} '
            f'aria-label="Play {label}"></audio>'
            f"{caption}{self._values(record)}{said}</figcaption></figure>"
        )

    def _values(self, record: Mapping[str, Any]) -> str:
        from musicgen_lab.analysis.features import FEATURES

        said = [
            f"<span>{escape(FEATURES[name].label)} "
            f"<b>{escape(value_with_unit(record[name], FEATURES[name].unit))}</b></span>"
            for name in self.features
        ]
        return f'<small class="values">{" ".join(said)}</small>' if said else ""


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Return what a listener should know of a clip."""
    notes = ["silent"] if record["is_silent"] is True else []
    if record["peak_dbfs"] > 0:
        beyond = f"{record['peak_dbfs']:.1f} dB"
        notes.append(f"peaks {beyond} above full scale: played {beyond} quieter")
    return notes
