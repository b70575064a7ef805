"""`RunTable`: the data of a run, one row per clip; figures, statistics and reports read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from musicgen_lab.analysis.drift import seam_times_s
from musicgen_lab.analysis.spectrogram import WINDOW_S, MelSpectrogram, mel_spectrogram_db
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS, SWEEP_ORDER, plain_number
from musicgen_lab.formatting import FieldLabels, did_you_mean
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.frame import build_rows, frame_columns, with_features
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from musicgen_lab.clip import Clip

T = TypeVar("T")


class RunTable:
    """The clips of a run folder as a table, with what has been computed from it.

    A table does not change once it is made. What is computed from it (spectrograms, study tables)
    is kept with it, so that every figure, sentence and page reads the same.

    Attributes
    ----------
    run : RunFolder
    rows : pandas.DataFrame
        One row per clip, with its features or without: `frame` has them. Not to be changed in
        place.
    missing : int
        Requested clips that have not been tried yet.
    labels : FieldLabels
        How the values of the fields are written; a selection keeps those of the whole run.
    """

    def __init__(
        self,
        run: RunFolder,
        rows: pd.DataFrame,
        missing: int = 0,
        *,
        labels: FieldLabels | None = None,
        whole: RunTable | None = None,
    ) -> None:
        self.run = run
        self.rows = rows
        self.missing = missing
        self.labels = labels or FieldLabels.of(
            list(dict.fromkeys(rows["prompt"])), run.source_names
        )
        self._whole = whole  # what the rows were selected from
        self._cache: dict[Hashable, Any] = {}

    @classmethod
    def open(cls, folder: str | Path) -> RunTable:
        """Read a run folder.

        Raises
        ------
        RunFolderError
            When there is no run in the folder.
        """
        return cls.of(RunFolder.started(folder))

    @classmethod
    def of(cls, run: RunFolder) -> RunTable:
        """Read a run folder that is open already; what it has read is not read again."""
        requested = {request.key(): request for request in run.requests()}
        records = {record.key: record for record in run.store.records()}
        records = {record.key: record for record in run.store.damaged(requested)} | records
        order = [key for key in requested if key in records]
        order += [key for key in records if key not in requested]
        rows = build_rows([records[key] for key in order])
        return cls(run, rows, missing=sum(key not in records for key in requested))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per clip with its features; see `musicgen_lab.results.Results`.

        When it is first read, clips that are new are measured, and the frame of the whole run is
        saved as Parquet. Not to be changed in place.
        """
        if frame_columns(self.rows) == list(self.rows.columns):
            return self.rows
        if self._whole is None:
            return with_features(self.rows, self.run)
        frame = self._whole.frame
        return frame[frame["key"].isin(self.rows["key"])].reset_index(drop=True)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.path

    @cached_property
    def sweeps(self) -> list[dict[str, Any]]:
        """The sweeps of the folder, the oldest first: `design`, `asked_at`, `lab_version`."""
        keep = {"design", "asked_at", "lab_version"}
        return [sweep.model_dump(include=keep) for sweep in self.run.sweeps]

    @cached_property
    def swept(self) -> tuple[str, ...]:
        """The request's fields that take more than one value here."""
        counts = {name: self.rows[name].nunique(dropna=False) for name in SWEEP_ORDER}
        return tuple(name for name in SWEEP_ORDER if counts[name] > 1)

    @property
    def replicate(self) -> str:
        """The field that numbers the replicates of a cell.

        It is the seed; or `begin_with` where the seed is the same throughout and what clips begin
        with is not, so that all clips that continue one source count as one replicate. Where
        nothing else is swept, the sources are what is compared.
        """
        others = [name for name in self.swept if name != "begin_with"]
        by_source = "begin_with" in self.swept and others and "seed" not in others
        return "begin_with" if by_source else "seed"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The swept fields that define the cells: all but the replicates' and the seed."""
        return tuple(name for name in self.swept if name not in ("seed", self.replicate))

    @property
    def cell_fields(self) -> list[str]:
        """The columns that tell cells apart: the parameters, or the prompt if there are none."""
        return list(self.parameters) or ["prompt"]

    @cached_property
    def records(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of the frame, each by column."""
        return tuple(
            {
                str(name): None if name == "begin_s" and value != value else value
                for name, value in record.items()
            }
            for record in self.frame.to_dict("records")
        )

    def values(self, name: str) -> list[Any]:
        """Return the distinct values of a column: numbers ascending, texts in their order."""
        return distinct_values(self.records, name)

    def clip(self, key: str) -> Clip:
        """Return the clip of a row's key, or of its first characters, as tables show them.

        Raises
        ------
        InvalidRequest
            When the keys of several rows begin with them.
        KeyError
            When that request has no finished clip.
        """
        keys = [whole for whole in self.rows["key"] if whole.startswith(key)]
        if len(keys) > 1:
            raise InvalidRequest(
                f"{len(keys)} clips have keys that begin with {key!r}; give more of it",
                field="key",
                value=key,
            )
        return self.run.store.clip(keys[0] if keys else key)

    def select(self, **fields: Any) -> RunTable:
        """Return the table of the rows whose columns have the given values.

        Parameters
        ----------
        **fields
            Any column of the frame, with a value or a list of values.

        Raises
        ------
        InvalidRequest
            When a column is unknown, or no row is left.
        """
        columns = frame_columns(self.rows)
        for name in fields:
            if name not in columns:
                raise InvalidRequest(
                    f"unknown column {name!r}{did_you_mean(name, columns)}; "
                    f"the columns are {', '.join(columns)}",
                    field=name,
                )
        source = self.rows if fields.keys() <= set(self.rows.columns) else self.frame
        rows = source
        for name, wanted in fields.items():
            is_one = isinstance(wanted, str) or not hasattr(wanted, "__iter__")
            values = [plain_number(value) for value in ([wanted] if is_one else wanted)]
            rows = rows[rows[name].isin(values)]
            if rows.empty:
                present = ", ".join(str(value) for value in source[name].unique()[:12])
                raise InvalidRequest(
                    f"no clip has {name} {wanted!r} together with the rest; there is {present}",
                    field=name,
                    value=wanted,
                )
        return RunTable(self.run, rows.reset_index(drop=True), labels=self.labels, whole=self)

    def with_columns(self, **columns: Any) -> RunTable:
        """Return the table with further columns; what has been computed is kept with it.

        Parameters
        ----------
        **columns
            A value for each row, by name.
        """
        frame = self.frame.assign(**columns)
        table = RunTable(self.run, frame, self.missing, labels=self.labels)
        table._cache = self._cache
        return table

    def mel_spectrograms(self, hop_s: float) -> Mapping[str, MelSpectrogram]:
        """Return the mel spectrogram of every finished clip that has samples, by its key.

        Parameters
        ----------
        hop_s : float
            Seconds between frames.
        """

        def compute() -> dict[str, MelSpectrogram]:
            made = self.rows[(self.rows["status"] == "ok") & (self.rows["frames"] > 0)]
            return {key: self._mel_spectrogram(key, hop_s) for key in made["key"]}

        return self.cached(("mel_spectrograms", hop_s), compute)

    def _mel_spectrogram(self, key: str, hop_s: float) -> MelSpectrogram:
        clip = self.clip(key)
        finite = np.nan_to_num(clip.samples, nan=0.0, posinf=0.0, neginf=0.0)
        return mel_spectrogram_db(finite, clip.sample_rate, window_s=WINDOW_S, hop_s=hop_s)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what was computed under a key before, or compute and keep it."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value


def distinct_values(records: tuple[Mapping[str, Any], ...], name: str) -> list[Any]:
    """Return a column's distinct values: numbers ascending, texts in their order."""
    values = list(dict.fromkeys(record[name] for record in records))
    if any(isinstance(value, str) for value in values):
        return values
    return sorted(values, key=lambda value: (value is not None, value))


def request_of(record: Mapping[str, Any]) -> GenerationRequest:
    """Return the request of a row.

    Raises
    ------
    InvalidRequest
        When it was made under other limits.
    """
    fields = {name: record[name] for name in REQUEST_FIELDS}
    return GenerationRequest(**{**fields, "begin_with": fields["begin_with"] or None})


def seams_of(record: Mapping[str, Any]) -> list[float]:
    """Return where the windows of a row's clip join, in seconds from the start of its sound.

    There is none within the part that the clip begins with, where its length is known.
    """
    duration_s, begin_s = record["duration"], record["begin_s"]
    given_s = left_out_s = 0.0
    if record["begin_with"]:
        if not record["include_start"]:
            given_s = left_out_s = duration_s - record["duration_s"]
        elif begin_s is not None and not math.isnan(begin_s):
            given_s = begin_s
    seams_s = seam_times_s(duration_s, record["extend_stride"])
    return [at_s - left_out_s for at_s in seams_s if at_s > given_s]
