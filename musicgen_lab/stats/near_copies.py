"""Clips of one cell that are nearly the same although their seeds differ."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from musicgen_lab.analysis.spectrogram import Array, MelSpectrogram
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    import pandas as pd

HOP_S = 0.032
SHIFT_LARGEST_S = 0.5
RANGE_DB = 60.0  # what lies further below a clip's loudest band does not count


def near_copies(table: RunTable, at_least: float = 0.9) -> pd.DataFrame:
    """Return the pairs of clips that differ in their seed alone and sound nearly the same.

    Many of them say that the model has settled on one piece of music for these parameters: more
    seeds show nothing new there.

    Parameters
    ----------
    table : RunTable
    at_least : float
        Lowest similarity of a pair, above 0 up to 1. The same music in other noise or a little
        later has 0.9 and more, other notes of the same instrument at the same tempo mostly under
        0.7.

    Returns
    -------
    pandas.DataFrame
        One row per pair, the most similar first: the swept fields without the seed, `seed_a`,
        `seed_b`, `key_a`, `key_b` and `similarity` (`take_similarity`; 1 for equal files).

    Raises
    ------
    InvalidRequest
        When `at_least` is out of its range.
    """
    import pandas as pd

    if not 0 < at_least <= 1:
        raise InvalidRequest(
            f"at_least must be above 0 and at most 1, got {at_least}",
            field="at_least",
            value=at_least,
        )
    mels = table.mel_spectrograms(HOP_S)
    by = table.cell_fields
    audible = table.frame[table.frame["key"].isin(mels) & ~table.frame["is_silent"].fillna(True)]
    rows = []
    for _, cell in audible.groupby(by, sort=False, dropna=False):
        for a, b in combinations(cell.to_dict("records"), 2):
            if a["seed"] == b["seed"]:
                continue
            same = a["audio_sha256"] == b["audio_sha256"]
            similarity = 1.0 if same else take_similarity(mels[a["key"]], mels[b["key"]])
            if similarity >= at_least:
                pair = [row[name] for name in ("seed", "key") for row in (a, b)]
                rows.append([*(a[name] for name in by), *pair, similarity])
    columns = [*by, "seed_a", "seed_b", "key_a", "key_b", "similarity"]
    pairs = pd.DataFrame(rows, columns=columns)
    return pairs.sort_values("similarity", ascending=False, ignore_index=True)


def take_similarity(first: MelSpectrogram, second: MelSpectrogram) -> float:
    """Return how alike the course of two clips is: the same notes at the same times.

    The correlation of their mel spectrograms in dB, less the average of each band over time, at
    the best of all shifts up to half a second. Neither gain nor timbre alone counts.

    Returns
    -------
    float
        From 0 to 1; 0 for a clip that does not change.
    """
    frames = min(len(first.times_s), len(second.times_s))
    changes = [_change_db(mel.level_db[:, :frames]) for mel in (first, second)]
    energy = np.prod([np.sum(np.square(change)) for change in changes])
    if frames < 2 or energy == 0:
        return 0.0
    spectra = [np.fft.rfft(change, 2 * frames, axis=1) for change in changes]
    products = np.fft.irfft(np.sum(spectra[0] * np.conj(spectra[1]), axis=0))
    furthest = min(round(SHIFT_LARGEST_S / HOP_S), frames - 1)
    shifts = np.arange(-furthest, furthest + 1)
    near = products[shifts] * frames / (frames - np.abs(shifts))  # as less of them overlaps
    return float(np.clip(near.max() / np.sqrt(energy), 0, 1))


def _change_db(level_db: Array) -> Array:
    level_db = np.maximum(level_db, level_db.max() - RANGE_DB).astype(np.float64)
    return np.asarray(level_db - level_db.mean(axis=1, keepdims=True))
