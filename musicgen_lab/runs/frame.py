"""The frame of a run, and its copy in the run folder, `results.parquet`."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import MusicGenLabWarning, RunFolderUnwritable
from musicgen_lab.fields import LATER_DEFAULTS, REQUEST_FIELDS
from musicgen_lab.runs.atomic_io import UnreadableFile, read_file, write_atomically
from musicgen_lab.runs.clip_store import ClipRecord
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

RESULTS_MAX_BYTES = 1_000_000_000
FIELD_DEFAULTS = {**LATER_DEFAULTS, "begin_with": ""}
"""The defaults of those fields that a record leaves out, as they are in the frame."""


def build_rows(records: list[ClipRecord]) -> pd.DataFrame:
    """Return one row per record: its request, what became of it, and who made it."""
    import pandas as pd

    rows = pd.DataFrame([_row(record) for record in records], columns=_row_columns())
    rows = rows.astype(dict.fromkeys(("sample_rate_hz", "channels", "frames"), "Int64"))
    return rows.astype({"begin_s": float, "gpu_s": float, "cost_usd": float})


def with_features(rows: pd.DataFrame, run: RunFolder) -> pd.DataFrame:
    """Return a run's rows with the features of its clips, and save that as Parquet.

    Features of the saved frame that are still valid are not measured again.
    """
    import pandas as pd

    from musicgen_lab.analysis.features import FEATURES, FEATURES_VERSION
    from musicgen_lab.runs.measuring import measure_files

    saved = _read_saved(run)
    known = _measured_before(saved)
    sounds = rows.dropna(subset=["audio_sha256"])
    new = {
        sound: run.path / path
        for sound, path in zip(sounds["audio_sha256"], sounds["path"], strict=True)
        if sound not in known
    }
    known |= dict(zip(new, measure_files("features", list(new.values())), strict=True))
    types = {"number": "float64", "yes or no": "boolean", "text": "string"}
    measured = pd.DataFrame(
        [known.get(sound, {}) for sound in rows["audio_sha256"]], rows.index, [*FEATURES]
    ).astype({name: types[feature.kind] for name, feature in FEATURES.items()})
    frame = pd.concat([rows, measured], axis=1)
    frame.attrs |= {"features_version": FEATURES_VERSION, "sha256": _checksum(_measured(frame))}
    _save(frame, run, saved)
    return frame


def frame_columns(rows: pd.DataFrame) -> list[str]:
    """Return the columns of a run's rows once they have the features of its clips."""
    from musicgen_lab.analysis.features import FEATURES

    return list(dict.fromkeys([*rows.columns, *FEATURES]))


def _row_columns() -> list[str]:
    return [
        "key",
        *REQUEST_FIELDS,
        "status",
        "error",
        "attempts",
        "path",
        "sample_rate_hz",
        "channels",
        "frames",
        "duration_s",
        "elapsed_s",
        "engine",
        "device",
        "dtype",
        "lab_version",
        "gpu",
        "gpu_s",
        "cost_usd",
        "created_at",
        "audio_sha256",
    ]


def _row(record: ClipRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": record.key,
        **FIELD_DEFAULTS,
        **record.request,
        "status": record.status,
        "error": f"{record.error.type}: {record.error.message}" if record.error else None,
        "attempts": record.attempts,
        "elapsed_s": record.elapsed_s,
        "created_at": record.created_at,
    }
    if record.audio is not None:
        row |= {
            "path": f"clips/{record.audio.file}",
            "sample_rate_hz": record.audio.sample_rate_hz,
            "channels": record.audio.channels,
            "frames": record.audio.frames,
            "duration_s": record.audio.frames / record.audio.sample_rate_hz,
            "audio_sha256": record.audio.sha256,
        }
    if record.provenance is not None:
        made_by = ("engine", "device", "dtype", "lab_version")
        row |= {name: getattr(record.provenance, name) for name in made_by}
        paid = ("gpu", "gpu_s", "cost_usd")
        row |= {name: record.provenance.details.get(name) for name in paid}
    return row


def _read_saved(run: RunFolder) -> bytes:
    """Return the content of the saved frame; empty where it is missing or cannot be read."""
    try:
        return read_file(run.results_path, root=run.path, max_bytes=RESULTS_MAX_BYTES)
    except (OSError, UnreadableFile):
        return b""


def _measured_before(content: bytes) -> dict[str, dict[Any, Any]]:
    """Return the features in a saved frame by the sound's checksum; none if it is out of date."""
    import pandas as pd

    from musicgen_lab.analysis.features import FEATURES, FEATURES_VERSION

    try:
        saved = pd.read_parquet(io.BytesIO(content), columns=["audio_sha256", *FEATURES])
        measured = _measured(saved)
        if saved.attrs.get("features_version") != FEATURES_VERSION:
            return {}
        return measured if saved.attrs.get("sha256") == _checksum(measured) else {}
    except Exception:  # missing, damaged in any way, or another program's: it is rebuilt
        return {}


def _measured(frame: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    """Return the features in a frame by the sound's checksum."""
    from musicgen_lab.analysis.features import FEATURES

    measured = frame.dropna(subset=["audio_sha256"]).drop_duplicates("audio_sha256")
    columns = measured[list(FEATURES)].to_dict("records")
    return dict(zip(measured["audio_sha256"], columns, strict=True))


def _checksum(measured: Mapping[str, Mapping[Any, Any]]) -> str:
    """Return the checksum of features: of what would be trusted without measuring it again."""
    values = sorted((sound, list(map(repr, row.values()))) for sound, row in measured.items())
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _save(frame: pd.DataFrame, run: RunFolder, saved: bytes) -> None:
    content = frame.to_parquet(index=False)
    try:
        if content != saved:
            write_atomically(run.results_path, content)
    except RunFolderUnwritable as error:
        warnings.warn(
            f"{run.results_path.name} was not saved: {error}", MusicGenLabWarning, stacklevel=4
        )
