"""`Plan`: what a sweep would make, told before anything is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musicgen_lab.backends import Backend
from musicgen_lab.backends.prices import Cost, Priced
from musicgen_lab.request import GenerationRequest
from musicgen_lab.runs.clip_store import ClipRecord

if TYPE_CHECKING:
    from musicgen_lab.results import Results


@dataclass(frozen=True)
class Plan:
    """What running a sweep would make.

    Attributes
    ----------
    cells : int
        Combinations of everything but the seed.
    seeds : int
        Seeds of the cell that has most.
    clips : int
        Clips in all.
    present : int
        Of these, how many are finished already.
    failed : int
        How many failed before, and will be tried again.
    to_make_s : float
        Seconds of audio still to make.
    estimate_s : float or None
        Seconds that it will take about; None where nothing is known.
    cost : Cost or None
        GPU-seconds and dollars that it will take about; None where nothing is paid or known.
    models : tuple of str
        The models asked for, each with its revision.
    backend : str
        What will make them.
    keys : frozenset of str
        Of the clips still to make.
    """

    cells: int
    seeds: int
    clips: int
    present: int
    failed: int
    to_make_s: float
    estimate_s: float | None
    cost: Cost | None
    models: tuple[str, ...]
    backend: str
    keys: frozenset[str]

    @classmethod
    def of(
        cls,
        requests: Sequence[GenerationRequest],
        records: Mapping[str, ClipRecord],
        backend: Backend,
    ) -> Plan:
        """Compare what is asked with what is there."""
        status = {
            request: records[key].status
            for request in requests
            if (key := request.key()) in records
        }
        to_make = [request for request in requests if status.get(request) != "ok"]
        seeds: dict[tuple[object, ...], int] = {}
        for request in requests:
            cell = tuple(request.model_dump(exclude={"seed"}).values())
            seeds[cell] = seeds.get(cell, 0) + 1
        return cls(
            cells=len(seeds),
            seeds=max(seeds.values()),
            clips=len(requests),
            present=len(requests) - len(to_make),
            failed=sum(state == "failed" for state in status.values()),
            to_make_s=sum(request.duration for request in to_make),
            estimate_s=backend.estimate_s(to_make),
            cost=backend.estimate_cost(to_make) if isinstance(backend, Priced) else None,
            models=tuple(dict.fromkeys(str(request.model) for request in requests)),
            backend=backend.name,
            keys=frozenset(request.key() for request in to_make),
        )

    @property
    def to_make(self) -> int:
        """Clips still to make, those that failed before among them."""
        return self.clips - self.present

    def beside(self, results: Results) -> str:
        """Set what the run took and cost, by measured GPU-seconds, beside what was planned.

        Parameters
        ----------
        results : Results
            Of the run that was planned. Clips that were there before it do not count.
        """
        rows = results.frame[results.frame["key"].isin(list(self.keys))].dropna(subset=["cost_usd"])
        if rows.empty:
            return "no clip of this run was paid for"
        machines = ", ".join(dict.fromkeys(rows["gpu"]))
        took = (
            f"{rows['gpu_s'].sum():,.1f} s of {machines}, about ${rows['cost_usd'].sum():,.4f}, "
            "for generating; containers' starts and idle times come on top"
        )
        lines = {
            "planned": "unknown" if self.cost is None else str(self.cost),
            "taken": took,
            "per clip": f"{rows['gpu_s'].mean():,.1f} s, about ${rows['cost_usd'].mean():,.4f}",
        }
        return "\n".join(f"{label:<15} {value}" for label, value in lines.items())

    def __str__(self) -> str:
        made_by = f"{self.to_make:,} ({self.to_make_s:,.0f} s of audio)"
        if self.estimate_s is None:
            time = "unknown before the model is here"
        else:
            time = f"about {words_for_seconds(self.estimate_s)}"
        lines = {
            "backend": self.backend,
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
        return "\n".join(f"{label:<15} {value}" for label, value in lines.items())

    __repr__ = __str__


def words_for_seconds(seconds: float) -> str:
    """Say a time as a person would: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
