"""`Plan`: a sweep resolved against a backend and a run folder, once; it says what it would make."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias, get_args

from musicgen_lab.backends import Backend, KnowsModels
from musicgen_lab.backends.prices import Cost, Priced
from musicgen_lab.clip import conversion_note
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning
from musicgen_lab.progress import ProgressBar
from musicgen_lab.request import GenerationRequest
from musicgen_lab.results import Results
from musicgen_lab.runs.clip_store import ClipRecord
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.runs.sharing import SharedWork

Mismatched: TypeAlias = Literal["keep", "remake", "refuse"]


@dataclass(frozen=True, repr=False, eq=False)
class Plan:
    """The clips that a sweep would make, their time and cost, and the method to run it.

    Made by `Sweep.plan`. Requests are resolved, their keys computed and the folder's records read
    once, here; `run` uses them as they are.

    Attributes
    ----------
    design : Mapping
        The sweep as recorded in the folder.
    requests : tuple of GenerationRequest
        Resolved, in the order of the sweep.
    backend : Backend
        Makes the clips.
    folder : RunFolder or None
        Where the clips are stored.
    records : Mapping of str to ClipRecord
        By key, of those requests that have been attempted in the folder before.
    mismatches : Mapping of str to str
        By key: how finished clips were made otherwise than the backend makes them.
    mismatched : {"keep", "remake", "refuse"}
        What becomes of those.
    notes : tuple of str
        Fields that were set and have no effect, each with the reason.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> sweep = lab.Sweep(prompt="calm acoustic guitar melody", duration=1, seed=range(3))
    >>> plan = sweep.plan(lab.connect("local"))
    >>> plan.clips, plan.present, plan.to_make_s
    (3, 0, 3.0)
    """

    design: Mapping[str, Any]
    requests: tuple[GenerationRequest, ...]
    backend: Backend
    folder: RunFolder | None
    records: Mapping[str, ClipRecord]
    mismatches: Mapping[str, str]
    mismatched: Mismatched
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        design: Mapping[str, Any],
        requests: tuple[GenerationRequest, ...],
        backend: Backend,
        folder: RunFolder | None,
        *,
        mismatched: Mismatched = "keep",
        notes: tuple[str, ...] = (),
    ) -> Plan:
        """Look up resolved requests in the folder.

        Parameters
        ----------
        design : Mapping
        requests : tuple of GenerationRequest
            Resolved.
        backend : Backend
        folder : RunFolder or None
        mismatched : {"keep", "remake", "refuse"}
        notes : tuple of str
            Fields that were set and have no effect.

        Raises
        ------
        InvalidRequest
            When mismatched clips are there and are to be refused.
        """
        if mismatched not in get_args(Mismatched):
            raise InvalidRequest(
                f"mismatched must be {', '.join(get_args(Mismatched))}, got {mismatched!r}",
                field="mismatched",
                value=mismatched,
            )
        records: dict[str, ClipRecord] = {}
        if folder is not None:
            for request in requests:
                record = folder.store.record(request.key())
                if record is not None:
                    records[request.key()] = record
        mismatches = {
            key: mismatch
            for key, record in records.items()
            if (mismatch := _mismatch(backend, record)) is not None
        }
        plan = cls(design, requests, backend, folder, records, mismatches, mismatched, notes)
        if mismatches and mismatched == "refuse":
            raise InvalidRequest(
                f"{plan.describe_mismatches()}; give another folder, or let them be made again "
                "(--remake, mismatched='remake')",
                field="mismatched",
            )
        return plan

    @property
    def clips(self) -> int:
        """Total number of clips."""
        return len(self.requests)

    @property
    def cells(self) -> int:
        """Combinations of everything but the seed."""
        return len(self._seeds)

    @property
    def seeds(self) -> int:
        """The largest number of seeds in a cell."""
        return max(self._seeds.values())

    @property
    def present(self) -> int:
        """Clips that are finished already."""
        return self.clips - self.to_make

    @property
    def failed(self) -> int:
        """Requests that failed before, and will be tried again."""
        return sum(record.status == "failed" for record in self.records.values())

    @property
    def to_make(self) -> int:
        """Clips still to make, including those that failed before."""
        return len(self._to_make)

    @property
    def to_make_s(self) -> float:
        """Seconds of audio still to make."""
        return sum(request.new_s for request in self._to_make)

    @cached_property
    def estimate_s(self) -> float | None:
        """Estimated seconds for making them; None if unknown."""
        return self.backend.estimate_s(self._to_make)

    @cached_property
    def cost(self) -> Cost | None:
        """Estimated GPU-seconds and dollars; None if it is free or unknown."""
        if not isinstance(self.backend, Priced):
            return None
        return self.backend.estimate_cost(self._to_make)

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the requests, each with its revision."""
        return tuple(dict.fromkeys(str(request.model) for request in self.requests))

    @property
    def finished(self) -> int:
        """Clips of this plan that are finished now: looked up again, such as after Ctrl-C."""
        return sum(self._is_finished(request) for request in self.requests)

    def describe_mismatches(self) -> str:
        """Return how many clips were made differently from this backend, and how."""
        count, ways = len(self.mismatches), dict.fromkeys(self.mismatches.values())
        return (
            f"{count:,} of the clips in {self.folder.path if self.folder else 'the folder'} "
            f"{'was' if count == 1 else 'were'} made otherwise: {'; '.join(ways)}"
        )

    def run(self, *, keep_failures: bool = False, progress: bool = True) -> Results:
        """Make all missing clips, and return the results of this plan's requests.

        Parameters
        ----------
        keep_failures : bool
            Do not retry requests that failed before.
        progress : bool
            Show the progress and the time left.

        Raises
        ------
        InvalidRequest
            When the plan was made without a folder.
        RunFolderError, RunFolderUnwritable
            When the folder contains something other than a run, or cannot be written.
        ModelUnavailable
            When the model cannot be opened.
        KeyboardInterrupt
            On Ctrl-C. Finished clips are kept; the message says how many.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> sweep = lab.Sweep(prompt="jazzy piano solo", duration=1, seed=range(2))
        >>> plan = sweep.plan(lab.connect("local"), "runs/piano")
        >>> results = plan.run(progress=False)
        >>> plan.finished
        2
        """
        folder = self.folder
        if folder is None:
            raise InvalidRequest("this plan has no run folder; make it with plan(backend, folder)")
        if self.mismatches and self.mismatched == "keep":
            warnings.warn(
                f"{self.describe_mismatches()}. They are kept; --remake (mismatched='remake') "
                "makes them again, --only-matching (mismatched='refuse') stops instead",
                MusicGenLabWarning,
                stacklevel=2,
            )
        folder.create()
        folder.add_sweep(self.design, self.requests)
        failed = {key for key, record in self.records.items() if record.status == "failed"}
        to_make = [
            request for request in self._to_make if not (keep_failures and request.key() in failed)
        ]
        here = isinstance(self.backend, KnowsModels)
        waiting = "opening the model" if here else f"waiting for {self.backend.name}"
        notes: dict[str, None] = {}
        work = SharedWork(folder, to_make, self.records, replace=self.mismatched == "remake")
        with (
            ProgressBar(to_make, shown=progress and bool(to_make), waiting=waiting) as bar,
            self._saying_what_is_kept(bar),
        ):
            for finished in work.make(partial(self.backend.generate, on_progress=bar.advance)):
                bar.finish(finished.request, failed=finished.record.status == "failed")
                notes |= {conversion_note(finished.record.provenance): None}
        for note in filter(None, notes):
            warnings.warn(note, MusicGenLabWarning, stacklevel=2)
        table = RunTable.of(folder).select(key=[request.key() for request in self.requests])
        _warn_of_equal_sound(table)
        return Results(table, made_here=frozenset(work.made_here))

    @contextmanager
    def _saying_what_is_kept(self, bar: ProgressBar) -> Iterator[None]:
        """Add a message to the KeyboardInterrupt of Ctrl-C: what is kept, and what is lost."""
        try:
            yield
        except KeyboardInterrupt:
            lost = ""
            if bar.unfinished_s >= 1:
                lost = f", {bar.unfinished_s:,.0f} s of sound in unfinished clips are lost"
            raise KeyboardInterrupt(
                f"{self.finished:,} of {self.clips:,} clips are made and kept{lost}: "
                "run it again to make the rest"
            ) from None

    def beside(self, results: Results) -> str:
        """Return the measured GPU-seconds and cost of the run beside the planned ones.

        Parameters
        ----------
        results : Results
            Of the run that was planned. Only the clips that it made itself count.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> sweep = lab.Sweep(prompt="jazzy piano solo", duration=1, seed=range(2))
        >>> plan = sweep.plan(lab.connect("local"), "runs/piano")
        >>> print(plan.beside(plan.run(progress=False)))
        no clip of this run cost money
        """
        made = results.table.rows["key"].isin(list(results.made_here))
        rows = results.table.rows[made].dropna(subset=["cost_usd"])
        if rows.empty:
            return "no clip of this run cost money"
        machines = ", ".join(dict.fromkeys(rows["gpu"]))
        took = (
            f"{rows['gpu_s'].sum():,.1f} s of {machines}, about ${rows['cost_usd'].sum():,.4f}, "
            "for generation; containers' start and idle times are additional"
        )
        lines = {
            "planned": "unknown" if self.cost is None else str(self.cost),
            "taken": took,
            "per clip": f"{rows['gpu_s'].mean():,.1f} s, about ${rows['cost_usd'].mean():,.4f}",
        }
        return "\n".join(f"{label:<15} {value}" for label, value in lines.items())

    @cached_property
    def _to_make(self) -> tuple[GenerationRequest, ...]:
        """The requests whose clips were not finished when the plan was made."""
        return tuple(
            request
            for request in self.requests
            if not self._is_present(self.records.get(request.key()))
        )

    @cached_property
    def _seeds(self) -> Counter[tuple[object, ...]]:
        """How many seeds every cell has."""
        return Counter(
            tuple(value for name, value in request if name != "seed") for request in self.requests
        )

    def _is_finished(self, request: GenerationRequest) -> bool:
        return self.folder is not None and self._is_present(self.folder.store.record(request.key()))

    def _is_present(self, record: ClipRecord | None) -> bool:
        """Return whether a record is of a finished clip that need not be made."""
        if record is None or record.status != "ok":
            return False
        return self.mismatched != "remake" or _mismatch(self.backend, record) is None

    def __str__(self) -> str:
        made_by = f"{self.to_make:,} ({self.to_make_s:,.0f} s of audio)"
        if self.estimate_s is None:
            time = "unknown"
        else:
            time = f"about {words_for_seconds(self.estimate_s)}"
        ways = list(dict.fromkeys(self.mismatches.values()))
        lines = {
            "backend": self.backend.name,
            "model": ", ".join(self.models),
            "cells": f"{self.cells:,}",
            "seeds per cell": f"{self.seeds:,}",
            "clips": f"{self.clips:,}",
            "already there": f"{self.present:,}",
            "failed before": f"{self.failed:,}",
            "to make": made_by,
            "estimated time": time if self.to_make else "none",
        }
        if self.cost is not None:
            lines["estimated cost"] = str(self.cost)
        if self.folder is not None:
            lines["run folder"] = str(self.folder.path.absolute())
        if ways:
            lines["made otherwise"] = f"{len(self.mismatches):,} ({'; '.join(ways)})"
        return "\n".join(f"{label:<15} {value}" for label, value in lines.items())

    __repr__ = __str__


def _mismatch(backend: Backend, record: ClipRecord) -> str | None:
    if not isinstance(backend, KnowsModels) or record.provenance is None:
        return None
    return backend.mismatch(record.provenance)


def _warn_of_equal_sound(table: RunTable) -> None:
    """Warn where clips of different requests are bit-identical: what differs did nothing there."""
    made = table.rows[table.rows["status"] == "ok"]
    differing: dict[str, None] = {}
    count = 0
    for _, clips in made.groupby("audio_sha256"):
        fields = [name for name in table.swept if clips[name].nunique(dropna=False) > 1]
        differing.update(dict.fromkeys(fields))
        count += len(clips) if fields else 0
    if count:
        warnings.warn(
            f"{count:,} of {len(made):,} clips are bit-identical to another that differs in "
            f"{' and '.join(differing)}, which had no effect on the sound there",
            MusicGenLabWarning,
            stacklevel=3,
        )


def words_for_seconds(seconds: float) -> str:
    """Format a duration for people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
