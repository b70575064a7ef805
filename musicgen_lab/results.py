"""`Results`: the tidy frame of a run, one row per clip, with its parameters and features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.atomic import write_atomically
from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning, RunFolderUnwritable
from musicgen_lab.request import REQUEST_FIELDS, SWEEP_ORDER
from musicgen_lab.run_folder import RunFolder
from musicgen_lab.store import ClipRecord

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """The results of a run folder: every clip that sweeps made or tried there.

    Attributes
    ----------
    folder : Path
        The run folder.
    frame : pandas.DataFrame
        One row per clip: `key`, every field of the request, `status` ("ok" or "failed"), `error`,
        `attempts`, `path` of the sound relative to the folder, its format, `elapsed_s`, who made
        it, and its features (`musicgen_lab.analysis.features`). The same as `results.parquet`.
    missing : int
        Clips that were asked for and not tried yet.
    """

    def __init__(self, run: RunFolder, frame: pd.DataFrame, missing: int) -> None:
        self._run = run
        self.frame = frame
        self.missing = missing

    @classmethod
    def open(cls, folder: str | Path) -> Results:
        """Read a run folder, measure what is not measured yet, and save the frame as Parquet.

        Raises
        ------
        RunFolderError
            When there is no run in the folder.
        """
        run = RunFolder.started(folder)
        records = {record.key: record for record in run.store.records()}
        asked = [request.key() for request in run.asked()]
        order = [key for key in asked if key in records]
        order += [key for key in records if key not in set(asked)]
        frame = _frame([records[key] for key in order], run)
        return cls(run, frame, missing=sum(key not in records for key in asked))

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.path

    @property
    def results_path(self) -> Path:
        """The frame as Parquet."""
        return self._run.results_path

    @property
    def sweeps(self) -> list[dict[str, Any]]:
        """What was asked of the folder, the oldest first: `design`, `asked_at`, `lab_version`."""
        keep = {"design", "asked_at", "lab_version"}
        return [sweep.model_dump(include=keep) for sweep in self._run.sweeps]

    @property
    def swept(self) -> tuple[str, ...]:
        """The request's fields that take more than one value here."""
        return tuple(name for name in SWEEP_ORDER if self.frame[name].nunique() > 1)

    def __repr__(self) -> str:
        failed = int((self.frame["status"] == "failed").sum())
        axes = " x ".join(self.swept) or "one request"
        return (
            f"<Results of {axes}: {len(self.frame) - failed} clips, {failed} failed, "
            f"{self.missing} missing, in {self.folder}>"
        )

    def clip(self, key: str) -> Clip:
        """Return the clip of a row's key.

        Raises
        ------
        KeyError
            When that request has no finished clip.
        """
        return self._run.store.clip(key)

    def select(self, **fields: Any) -> Results:
        """Return the results of the rows whose fields have the given values.

        Parameters
        ----------
        **fields
            Any column of the frame, with a value or a list of values.

        Raises
        ------
        InvalidRequest
            When a column is unknown, or no row is left.
        """
        rows = self.frame
        for name, wanted in fields.items():
            if name not in rows.columns:
                raise InvalidRequest(
                    f"unknown column {name!r}; the columns are {', '.join(rows.columns)}",
                    field=name,
                )
            values = (
                [wanted] if isinstance(wanted, str) or not hasattr(wanted, "__iter__") else wanted
            )
            rows = rows[rows[name].isin(list(values))]
            if rows.empty:
                there = ", ".join(str(value) for value in self.frame[name].unique()[:12])
                raise InvalidRequest(
                    f"no clip has {name} {wanted!r} together with the rest; there is {there}",
                    field=name,
                    value=wanted,
                )
        return Results(self._run, rows.reset_index(drop=True), missing=0)

    def summary(self, feature: str) -> pd.DataFrame:
        """Return a feature's spread over seeds in every cell.

        Parameters
        ----------
        feature : str
            A numeric column of the frame.

        Returns
        -------
        pandas.DataFrame
            One row per cell: the swept fields, then `n` (clips with a value), `mean`, `std`
            (over seeds, NaN for one), `min` and `max`, in the feature's unit.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        from musicgen_lab.analysis.features import FEATURES

        if feature not in FEATURES:
            raise InvalidRequest(
                f"unknown feature {feature!r}; the features are {', '.join(FEATURES)}",
                field=feature,
            )
        cell = [name for name in self.swept if name != "seed"] or ["prompt"]
        values = self.frame.astype({feature: float}).groupby(cell, sort=False)[feature]
        summary = values.agg(["count", "mean", "std", "min", "max"])
        return summary.rename(columns={"count": "n"}).reset_index()


def _frame(records: list[ClipRecord], run: RunFolder) -> pd.DataFrame:
    """Build the frame, taking features from the saved one where they are still true."""
    import pandas as pd

    from musicgen_lab.analysis.features import FEATURES, FEATURES_VERSION, measure

    known = _measured_before(run)
    rows = []
    for record in records:
        row = _row(record)
        if record.audio is not None:
            features: Mapping[str, Any] | None = known.get(record.audio.sha256)
            if features is None:
                clip = run.store.clip(record.key)
                features = measure(clip.samples, clip.sample_rate)
            row.update(features)
        rows.append(row)
    columns = [*_row_columns(), *FEATURES]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.astype(dict.fromkeys(("sample_rate_hz", "channels", "frames"), "Int64"))
    frame = frame.astype({"gpu_s": float, "cost_usd": float})
    frame = frame.astype({name: float for name in FEATURES if not name.startswith("is_")})
    frame = frame.astype({name: "boolean" for name in FEATURES if name.startswith("is_")})
    frame.attrs["features_version"] = FEATURES_VERSION
    _save(frame, run)
    return frame


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
        row |= {name: record.provenance[name] for name in made_by}
        paid = ("gpu", "gpu_s", "cost_usd")
        row |= {name: record.provenance["details"].get(name) for name in paid}
    return row


def _measured_before(run: RunFolder) -> dict[str, dict[Any, Any]]:
    """Return the features in the saved frame by the sound's checksum; none if it is out of date."""
    import pandas as pd

    from musicgen_lab.analysis.features import FEATURES, FEATURES_VERSION

    try:
        saved = pd.read_parquet(run.results_path)
        if saved.attrs.get("features_version") != FEATURES_VERSION:
            return {}
        measured = saved.dropna(subset=["audio_sha256"]).drop_duplicates("audio_sha256")
        columns = measured[list(FEATURES)].to_dict("records")
        return dict(zip(measured["audio_sha256"], columns, strict=True))
    except (OSError, ValueError, KeyError):
        return {}  # missing, damaged or another program's: it is rebuilt


def _save(frame: pd.DataFrame, run: RunFolder) -> None:
    content = frame.to_parquet(index=False)
    try:
        if not run.results_path.exists() or run.results_path.read_bytes() != content:
            write_atomically(run.results_path, content)
    except RunFolderUnwritable as error:
        warnings.warn(
            f"{run.results_path.name} was not saved: {error}", MusicGenLabWarning, stacklevel=2
        )
