"""`Sweep`: a grid or a random design over request fields, planned, run, and resumed."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from musicgen_lab.backends import Backend
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.plan import Plan
from musicgen_lab.request import (
    REQUEST_FIELDS,
    SWEEP_ORDER,
    GenerationRequest,
    ignored_by_choice,
    plain_number,
    unknown_field,
)
from musicgen_lab.results import Results
from musicgen_lab.runs.run_folder import RunFolder

DEFAULT_SEED = 0
REQUESTS_MAX = 1_000_000


class Sweep:
    """A grid over request fields, each combination with every seed.

    Every field of `GenerationRequest` takes one value, or a list, range or array of them. The
    order is fixed: model, prompt, duration, top_k, top_p, temperature, cfg_coef, seed, the last
    varying fastest, values in the order given. The same combination is asked for once.

    A combination of everything but the seed is a cell; seeds are its replicates. Without a seed
    every cell is made once, with seed 0, so that the sweep can be run again and resumed.

    Attributes
    ----------
    requests : tuple of GenerationRequest
        What is to be made, in order.
    swept : tuple of str
        The fields that take more than one value.
    notes : tuple of str
        Fields that were set and cannot act, each with the reason.

    Raises
    ------
    InvalidRequest
        When a value is outside its limits, a list is empty, or a field is swept that cannot act,
        such as top_k while top_p is above 0.

    Examples
    --------
    >>> sweep = Sweep(
    ...     prompt="calm acoustic guitar melody",
    ...     temperature=[0.7, 1.0, 1.3],
    ...     cfg_coef=[1, 3, 5],
    ...     seed=range(3),
    ... )
    >>> len(sweep.requests)
    27
    """

    def __init__(self, **fields: Any) -> None:
        values = {name: _values(name, given) for name, given in fields.items()}
        values.setdefault("seed", [DEFAULT_SEED])
        order = [name for name in SWEEP_ORDER if name in values]
        size = math.prod(len(values[name]) for name in order)
        if size > REQUESTS_MAX:
            raise InvalidRequest(
                f"a sweep can have up to {REQUESTS_MAX:,} clips, got {size:,}; "
                "give fewer values, or draw from the space with Sweep.sample"
            )
        points = (
            dict(zip(order, point, strict=True))
            for point in itertools.product(*(values[name] for name in order))
        )
        self._set({"kind": "grid", "fields": {name: values[name] for name in order}}, points)

    @classmethod
    def sample(cls, n: int, *, seed: int = 0, replicates: int = 1, **fields: Any) -> Sweep:
        """Draw a random design, for spaces too large for a grid.

        The points are a Latin hypercube: every range is cut into `n` equal parts and every part is
        hit once (McKay, Beckman and Conover 1979).

        Parameters
        ----------
        n : int
            Points to draw, each a cell, from 1 to 1,000,000.
        seed : int
            Seed of the design: the same one draws the same points. It is not the clips' seed.
        replicates : int
            Clips per point, with seeds 0, 1, …
        **fields
            A tuple (low, high) is a range to draw from, evenly; a list is a choice; one value is
            the same for every point.

        Raises
        ------
        InvalidRequest
            As for a grid, and when `n` or `replicates` is not a whole number above 0.
        """
        from scipy.stats import qmc

        for name, number in (("n", n), ("replicates", replicates)):
            if not isinstance(number, numbers.Integral) or not 1 <= number <= REQUESTS_MAX:
                raise InvalidRequest(
                    f"{name} must be a whole number from 1 to {REQUESTS_MAX:,}, got {number!r}",
                    field=name,
                    value=number,
                )
        for name in fields.keys() - set(REQUEST_FIELDS):
            raise unknown_field(name)
        fields = {
            name: given if isinstance(given, tuple) else _values(name, given)
            for name, given in fields.items()
        }
        drawn = [name for name in SWEEP_ORDER if name in fields]
        unit = qmc.LatinHypercube(d=max(1, len(drawn)), rng=seed).random(n)[:, : len(drawn)]
        points = [
            {
                "seed": replicate,
                **{
                    name: _place(name, fields[name], float(position))
                    for name, position in zip(drawn, row, strict=True)
                },
            }
            for row in unit
            for replicate in range(replicates)
        ]
        sweep = cls.__new__(cls)
        sweep._set(
            {"kind": "sample", "n": n, "seed": seed, "replicates": replicates, "fields": fields},
            points,
        )
        return sweep

    def _set(self, design: dict[str, Any], points: Iterable[Mapping[str, Any]]) -> None:
        self.design = design
        requests = dict.fromkeys(GenerationRequest(**point) for point in points)
        self.requests = tuple(requests)
        distinct: dict[str, set[Any]] = {name: set() for name in SWEEP_ORDER}
        for request in self.requests:
            for name in SWEEP_ORDER:
                distinct[name].add(getattr(request, name))
        self.swept = tuple(name for name in SWEEP_ORDER if len(distinct[name]) > 1)
        notes: dict[str, None] = {}
        chosen = [name for name in design["fields"] if name not in self.swept and name != "seed"]
        for request in self.requests:
            inert = request.inert_fields()
            for name in self.swept:
                if name in inert:
                    raise InvalidRequest(
                        f"sweeping {name} does nothing where {inert[name]}; "
                        f"leave {name} at one value there, in a sweep of its own",
                        field=name,
                    )
            notes.update(dict.fromkeys(ignored_by_choice(request, chosen)))
        self.notes = tuple(notes)

    def __repr__(self) -> str:
        axes = " x ".join(self.swept) or "nothing"
        return f"<Sweep of {axes}: {len(self.requests)} clips>"

    def plan(self, backend: Backend, folder: str | Path | None = None) -> Plan:
        """Say what running this would make, before anything is made.

        Parameters
        ----------
        backend : Backend
        folder : str or Path, optional
            The run folder, whose finished clips count as there already. Nothing is made in it.

        Raises
        ------
        ModelUnavailable
            When the backend cannot serve a model that is asked for.
        RunFolderError
            When the folder holds another kind of thing.
        """
        requests = tuple(backend.resolve(request) for request in self.requests)
        run = RunFolder(folder) if folder is not None else None
        return Plan.of(self.design, requests, backend, run)

    def run(
        self,
        backend: Backend,
        folder: str | Path,
        *,
        keep_failures: bool = False,
        progress: bool = True,
    ) -> Results:
        """Make every clip that is not there yet, and return the results of this sweep.

        Run it again to resume: finished clips are kept, failed ones are tried again. It can be
        interrupted at any moment, and two processes may work on one folder. Clips of other sweeps
        in the folder are not among the results; `Results.open` reads them all.

        Parameters
        ----------
        backend : Backend
        folder : str or Path
            Where the clips go; created where it is missing.
        keep_failures : bool
            Leave requests that failed before as they are.
        progress : bool
            Show a bar with clips done, failed, and time left.

        Raises
        ------
        RunFolderError, RunFolderUnwritable
            When the folder holds another kind of thing or cannot be written.
        ModelUnavailable
            When the model cannot be opened.
        KeyboardInterrupt
            On Ctrl-C. What was finished is kept.
        """
        return self.plan(backend, folder).run(keep_failures=keep_failures, progress=progress)


def _values(name: str, given: Any) -> list[Any]:
    """Return the values that a field is to take: one, or those of a list, range or array."""
    if name not in REQUEST_FIELDS:
        raise unknown_field(name, given)
    if name == "seed" and given is None:
        raise InvalidRequest(
            "a sweep needs seeds to find its clips again; give numbers, or leave seed out for 0",
            field="seed",
        )
    if isinstance(given, str) or not isinstance(given, Iterable):
        return [plain_number(given)]
    if isinstance(given, set | frozenset | Mapping):
        raise InvalidRequest(
            f"{name} takes a value or a list in an order, got a {type(given).__name__}",
            field=name,
            value=given,
        )
    values = [plain_number(value) for value in given]
    if not values:
        raise InvalidRequest(f"{name} needs at least one value, got an empty list", field=name)
    try:
        return list(dict.fromkeys(values))
    except TypeError:
        raise InvalidRequest(
            f"{name} takes a value or a flat list of them, got {given!r}", field=name, value=given
        ) from None


def _place(name: str, given: tuple[Any, ...] | list[Any], position: float) -> Any:
    """Map a position in [0, 1) to a range's value or a list's choice."""
    if isinstance(given, list):
        return given[int(position * len(given))]
    if len(given) != 2 or not all(isinstance(end, numbers.Real) for end in given):
        raise InvalidRequest(
            f"{name} must be a range (low, high) of two numbers, or a list, got {given!r}",
            field=name,
            value=given,
        )
    low, high = given
    if not low <= high:
        raise InvalidRequest(
            f"{name} must be a range (low, high) with low first, got {given!r}",
            field=name,
            value=given,
        )
    if name == "top_k":
        return min(int(low + position * (high - low + 1)), int(high))
    return min(max(round(float(low + position * (high - low)), 4), float(low)), float(high))
