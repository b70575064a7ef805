"""`Sweep`: a grid or a random design over request fields, planned, run, and resumed."""

from __future__ import annotations

import itertools
import math
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

from musicgen_lab.backends import Backend, KnowsCodebooks
from musicgen_lab.backends.prompts import prompt_notes
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning
from musicgen_lab.fields import (
    REQUEST_FIELDS,
    REQUESTS_MAX,
    SWEEP_ORDER,
    TOP_K_MAX,
    field_schema,
    fields_signature,
    limit_of,
    plain_number,
    unknown_field,
)
from musicgen_lab.formatting import short
from musicgen_lab.plan import Mismatched, Plan
from musicgen_lab.request import GenerationRequest, ignored_by_choice
from musicgen_lab.results import Results
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.runs.sources import map_values, open_source
from musicgen_lab.source import Source

DEFAULT_SEED = 0


class _Values(TypedDict, total=False):
    """Fields of a request with one value or several, for type checkers."""

    model: str | Iterable[str] | None
    duration: float | Iterable[float]
    temperature: float | Iterable[float]
    top_k: int | Iterable[int]
    top_p: float | Iterable[float]
    cfg_coef: float | Iterable[float]
    negative_prompt: str | Iterable[str]
    prompt_b: str | Iterable[str]
    mix: float | Iterable[float]
    extend_stride: float | Iterable[float]
    begin_with: str | Path | Source | None | Iterable[str | Path | Source | None]
    begin_at: float | Iterable[float]
    begin_s: float | Iterable[float]
    include_start: bool | Iterable[bool]


class GridFields(_Values, total=False):
    """The fields of a `Sweep`."""

    prompt: Required[str | Iterable[str]]
    seed: int | Iterable[int]


class SampleFields(_Values, total=False):
    """The fields of `Sweep.sample`: a tuple (low, high) is a range, a list is a choice."""

    prompt: Required[str | Iterable[str]]


class RowFields(_Values, total=False):
    """The fields of `Sweep.from_rows` that the rows do not have."""

    prompt: str | Iterable[str]
    seed: int | Iterable[int]


class Sweep:
    """A grid over request fields, each combination with every seed.

    Every field of `GenerationRequest` takes one value, or a list, range or array of them. The
    order is fixed: model, the prompts, begin_with and its part, duration, extend_stride, top_k,
    top_p, temperature, cfg_coef, mix, seed, the last varying fastest, values in the given order.
    Duplicate combinations are dropped.

    A combination of everything but the seed is a cell; seeds are its replicates. Without a seed
    every cell is made once, with seed 0, so that the sweep can be run again and resumed.

    Parameters
    ----------
    prompt : str or iterable of str
    duration, temperature, top_p, cfg_coef : float or iterable of float, optional
    top_k, seed : int or iterable of int, optional
    model : str or iterable of str, optional
    negative_prompt, prompt_b : str or iterable of str, optional
    mix, extend_stride, begin_at, begin_s : float or iterable of float, optional
    include_start : bool or iterable of bool, optional
        Limits and defaults are those of `GenerationRequest`, except for the seed.
    begin_with : str or Path or Source, or iterable of them, optional
        Sound files, or clips of run folders as "RUN#KEY"; see `musicgen_lab.open_source`.

    Attributes
    ----------
    requests : tuple of GenerationRequest
        The requests, in order.
    swept : tuple of str
        The fields that take more than one value.
    notes : tuple of str
        Fields that were set and have no effect, each with the reason.

    Raises
    ------
    InvalidRequest
        When a value is outside its limits, a list is empty, or a swept field has no effect, such
        as top_k while top_p is above 0.

    Examples
    --------
    >>> from musicgen_lab import Sweep
    >>> sweep = Sweep(
    ...     prompt="calm acoustic guitar melody",
    ...     temperature=[0.7, 1.0, 1.3],
    ...     cfg_coef=[1, 3, 5],
    ...     seed=range(3),
    ... )
    >>> sweep
    <Sweep of temperature x cfg_coef x seed: 27 clips>
    """

    def __init__(self, **fields: Unpack[GridFields]) -> None:
        values = _value_lists(fields)
        values.setdefault("seed", [DEFAULT_SEED])
        self._set({"kind": "grid", "fields": _ordered(values)}, _grid(values))

    @classmethod
    def sample(
        cls, n: int, *, seed: int = 0, replicates: int = 1, **fields: Unpack[SampleFields]
    ) -> Sweep:
        """Draw a random design, for spaces too large for a grid.

        The points are a Latin hypercube: every range is divided into `n` equal parts and every part
        is sampled once (McKay, Beckman and Conover 1979).

        Parameters
        ----------
        n : int
            Points to draw, each a cell, from 1 to 1,000,000.
        seed : int
            Seed of the design, which determines the points. It is not the clips' seed.
        replicates : int
            Clips per point, with seeds 0, 1, …
        **fields
            A tuple (low, high) is a range for uniform sampling; a list is a choice; one value is
            used for every point.

        Raises
        ------
        InvalidRequest
            As for a grid, when `n` or `replicates` is not a whole number above 0, and when the
            fields have fewer different points than `n`.

        Examples
        --------
        >>> from musicgen_lab import Sweep
        >>> Sweep.sample(20, prompt="jazzy piano solo", temperature=(0.5, 1.5), cfg_coef=(1, 8))
        <Sweep of temperature x cfg_coef: 20 clips>
        """
        from scipy.stats import qmc

        for name, number in (("n", n), ("replicates", replicates)):
            if not isinstance(number, numbers.Integral) or not 1 <= number <= REQUESTS_MAX:
                raise InvalidRequest(
                    f"{name} must be a whole number from 1 to {REQUESTS_MAX:,}, got {number!r}",
                    field=name,
                    value=number,
                )
        if not isinstance(seed, numbers.Integral) or seed < 0:
            raise InvalidRequest(
                f"seed, of the design, must be a whole number of 0 or more, got {seed!r}",
                field="seed",
                value=seed,
            )
        n, replicates, seed = int(n), int(replicates), int(seed)  # NumPy's are not JSON
        _check_size(n * replicates)
        space: dict[str, Any] = {
            name: tuple(map(plain_number, given))
            if isinstance(given, tuple)
            else _values(name, given)
            for name, given in fields.items()
        }
        for name in space.keys() - set(REQUEST_FIELDS):
            raise unknown_field(name)
        drawn = [name for name in SWEEP_ORDER if name in space]
        unit = qmc.LatinHypercube(d=max(1, len(drawn)), rng=seed).random(n)[:, : len(drawn)]
        points = [
            {
                name: _place(name, space[name], float(position))
                for name, position in zip(drawn, row, strict=True)
            }
            for row in unit
        ]
        distinct = len({tuple(point.items()) for point in points})
        if distinct < n:
            raise _too_few_points(n, distinct, space)
        sweep = cls.__new__(cls)
        sweep._set(
            {"kind": "sample", "n": n, "seed": seed, "replicates": replicates, "fields": space},
            ({**point, "seed": seed} for point in points for seed in range(replicates)),
        )
        return sweep

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], **fields: Unpack[RowFields]) -> Sweep:
        """Make a sweep of given combinations, such as the rows of a table.

        Parameters
        ----------
        rows : iterable of Mapping
            Request fields by name, each row a combination.
        **fields
            As for a grid: every row with each combination of them.

        Raises
        ------
        InvalidRequest
            As for a grid, and when there are no rows or a field is in both.

        Examples
        --------
        >>> from musicgen_lab import Sweep
        >>> rows = [{"prompt": "piano", "cfg_coef": 3}, {"prompt": "drums", "cfg_coef": 5}]
        >>> Sweep.from_rows(rows, duration=4, seed=range(2))
        <Sweep of prompt x cfg_coef x seed: 4 clips>
        """
        table = [_row(row) for row in rows]
        if not table:
            raise InvalidRequest("a sweep needs at least one row, got none")
        names = list(dict.fromkeys(name for row in table for name in row))
        for name in names:
            if name not in REQUEST_FIELDS:
                raise unknown_field(name)
            if name in fields:
                raise InvalidRequest(
                    f"{name} is in the rows already; give it in one place", field=name
                )
        values = _value_lists(fields)
        if "seed" not in names:
            values.setdefault("seed", [DEFAULT_SEED])
        _check_size(len(table) * math.prod(map(len, values.values())))
        sweep = cls.__new__(cls)
        sweep._set(
            {"kind": "rows", "rows": table, "fields": _ordered(values)},
            ({"seed": DEFAULT_SEED, **row, **point} for row in table for point in _grid(values)),
        )
        return sweep

    def _set(self, design: dict[str, Any], points: Iterable[Mapping[str, Any]]) -> None:
        self.design = map_values(_as_recorded, design)
        self.requests = tuple(dict.fromkeys(GenerationRequest(**point) for point in points))
        distinct: dict[str, set[Any]] = {name: set() for name in SWEEP_ORDER}
        for request in self.requests:
            for name in SWEEP_ORDER:
                distinct[name].add(getattr(request, name))
        self.swept = tuple(name for name in SWEEP_ORDER if len(distinct[name]) > 1)
        if len(distinct["begin_s"]) > 1 and None in distinct["begin_s"]:
            raise InvalidRequest(
                "begin_s is given for a part of the clips only; give the length in seconds for all",
                field="begin_s",
            )
        self.notes = self._check_effects(self.requests, {})

    def _check_effects(
        self, requests: Iterable[GenerationRequest], codebook_sizes: Mapping[str | None, int]
    ) -> tuple[str, ...]:
        """Reject swept fields without effect; return the notes on those that were only set."""
        given = {
            *self.design["fields"],
            *(name for row in self.design.get("rows", ()) for name in row),
        }
        chosen = [
            name
            for name in SWEEP_ORDER
            if name in given and name != "seed" and name not in self.swept
        ]
        notes: dict[str, None] = {}
        for request in requests:
            size = codebook_sizes.get(request.model, TOP_K_MAX)
            inert = request.inert_fields(size)
            for name in self.swept:
                if name in inert:
                    raise InvalidRequest(
                        f"sweeping {name} does nothing where {inert[name]}; "
                        f"leave {name} at one value there, in a sweep of its own",
                        field=name,
                    )
            notes.update(dict.fromkeys(ignored_by_choice(request, chosen, size)))
        return tuple(notes)

    def __repr__(self) -> str:
        axes = " x ".join(self.swept) or "nothing"
        return f"<Sweep of {axes}: {len(self.requests):,} clip{'s' * (len(self.requests) != 1)}>"

    def plan(
        self,
        backend: Backend,
        folder: str | Path | None = None,
        *,
        mismatched: Mismatched = "keep",
    ) -> Plan:
        """Return what running this would make, before anything is made.

        Parameters
        ----------
        backend : Backend
        folder : str or Path, optional
            The run folder, whose finished clips are counted as present. It is not modified.
        mismatched : {"keep", "remake", "refuse"}
            What becomes of clips in the folder that were made by another engine or in another
            precision than this backend's: they are kept, with a warning when the plan is run; made
            again; or refused.

        Raises
        ------
        InvalidRequest
            When `backend` is not a backend, a swept field has no effect on its model, two prompts
            become the same tokens, or mismatched clips are refused.
        ModelUnavailable
            When the backend cannot serve a requested model.
        RunFolderError
            When the folder contains something other than a run.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> sweep = lab.Sweep(prompt="calm acoustic guitar melody", cfg_coef=[1, 3], duration=4)
        >>> plan = sweep.plan(lab.connect("local"), "runs/guitar")
        >>> plan.clips, plan.to_make_s
        (2, 8.0)
        """
        if isinstance(backend, str) or not isinstance(backend, Backend):
            raise InvalidRequest(
                f"backend must be one, such as musicgen_lab.connect('local'), got {backend!r}",
                field="backend",
                value=backend,
            )
        run = RunFolder(folder) if folder is not None else None
        requests = tuple(backend.resolve(_with_source(request, run)) for request in self.requests)
        notes, models = self.notes, {request.model for request in requests}
        if isinstance(backend, KnowsCodebooks):
            notes = self._check_effects(
                requests, {model: backend.codebook_size(str(model)) for model in models}
            )
        for note in prompt_notes(requests, backend):
            warnings.warn(note, MusicGenLabWarning, stacklevel=2)
        return Plan.of(self.design, requests, backend, run, mismatched=mismatched, notes=notes)

    def run(
        self,
        backend: Backend,
        folder: str | Path,
        *,
        mismatched: Mismatched = "keep",
        keep_failures: bool = False,
        progress: bool = True,
    ) -> Results:
        """Make all missing clips, and return the results of this sweep.

        Run it again to resume: finished clips are kept, failed ones are tried again. It can be
        interrupted at any time, and two processes may work on one folder. Clips of other sweeps
        in the folder are not included in the results; `Results.open` reads all of them.

        Parameters
        ----------
        backend : Backend
        folder : str or Path
            The run folder; created if it is missing.
        mismatched : {"keep", "remake", "refuse"}
            See `plan`.
        keep_failures : bool
            Do not retry requests that failed before.
        progress : bool
            Show the progress and the time left.

        Raises
        ------
        InvalidRequest, ModelUnavailable, RunFolderError
            As for `plan`, and when the model cannot be opened.
        RunFolderUnwritable
            When the folder cannot be written.
        KeyboardInterrupt
            On Ctrl-C. Finished clips are kept.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> sweep = lab.Sweep(prompt="calm acoustic guitar melody", cfg_coef=[1, 3], duration=1)
        >>> results = sweep.run(lab.connect("local"), "runs/guitar", progress=False)
        >>> results.frame[["cfg_coef", "status"]]
           cfg_coef status
        0       1.0     ok
        1       3.0     ok
        """
        plan = self.plan(backend, folder, mismatched=mismatched)
        return plan.run(keep_failures=keep_failures, progress=progress)


Sweep.__signature__ = fields_signature("{0} | Iterable[{0}]", seed=DEFAULT_SEED)  # type: ignore[attr-defined]


def _with_source(request: GenerationRequest, run: RunFolder | None) -> GenerationRequest:
    """Return the request with the content of what it begins with, from the run folder if needed.

    Raises
    ------
    InvalidRequest
        When the content is nowhere.
    """
    source = request.begin_with
    if source is None or source.content is not None:
        return request
    kept = run.source(source.digest) if run is not None else None
    if kept is None:
        raise InvalidRequest(
            f"the run folder has no copy of begin_with {source.digest[:12]}…; give the sound file",
            field="begin_with",
            value=source.digest,
        )
    return GenerationRequest(**{**dict(request), "begin_with": kept})


def _too_few_points(n: int, distinct: int, space: Mapping[str, Any]) -> InvalidRequest:
    """Return why there are fewer different points than requested, and what was probably meant."""
    choices = [name for name, given in space.items() if isinstance(given, list) and len(given) > 1]
    reason = "the ranges are too narrow for more"
    if choices or not any(isinstance(given, tuple) for given in space.values()):
        reason = (
            f"a list is a choice between its values ({', '.join(choices) or 'none is given'}); "
            "write a range as a tuple, such as temperature=(0.5, 1.5), or make a grid with Sweep"
        )
    return InvalidRequest(
        f"{n:,} points are wanted, but only {distinct:,} of those drawn differ: {reason}",
        field=choices[0] if choices else None,
    )


def _as_recorded(value: Any) -> Any:
    """Return a value of a design as JSON has it: a source's digest, the ends of a range."""
    if isinstance(value, tuple):
        return dict(zip(("low", "high"), value, strict=True))
    return value.digest if isinstance(value, Source) else value


def _value_lists(fields: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: _values(name, given) for name, given in fields.items()}


def _ordered(values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values[name] for name in SWEEP_ORDER if name in values}


def _grid(values: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination, the last field of the order varying fastest."""
    ordered = _ordered(values)
    _check_size(math.prod(map(len, ordered.values())))
    for point in itertools.product(*ordered.values()):
        yield dict(zip(ordered, point, strict=True))


def _check_size(clips: int) -> None:
    if clips > REQUESTS_MAX:
        raise InvalidRequest(
            f"a sweep can have up to {REQUESTS_MAX:,} clips, got {clips:,}; "
            "give fewer values, or draw from the space with Sweep.sample"
        )


def _values(name: str, given: Any) -> list[Any]:
    """Return the values of a field: one, or those of a list, range or array."""
    if name not in REQUEST_FIELDS:
        raise unknown_field(name, given)
    given = plain_number(given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        given = [given]
    if isinstance(given, set | frozenset | Mapping):
        raise InvalidRequest(
            f"{name} takes a value or a list in an order, got a {type(given).__name__}",
            field=name,
            value=given,
        )
    given = list(itertools.islice(given, REQUESTS_MAX + 1))  # a range may be of any length
    if len(given) > REQUESTS_MAX:
        raise InvalidRequest(
            f"{name} can have up to {REQUESTS_MAX:,} values, got more; give fewer", field=name
        )
    values = [_value(name, value) for value in given]
    if not values:
        raise InvalidRequest(f"{name} needs at least one value, got an empty list", field=name)
    try:
        return list(dict.fromkeys(values))
    except TypeError:
        raise InvalidRequest(
            f"{name} takes a value or a flat list of them, got {given!r}", field=name, value=given
        ) from None


def _row(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InvalidRequest(
            f"a row must be fields by name, such as {{'prompt': 'piano', 'cfg_coef': 3}}, got "
            f"{short(row)}; those of a table are table.to_dict('records')"
        )
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, given: Any) -> Any:
    """Return a value of a field as a request takes it: a source for a path, a plain number."""
    if name == "seed" and given is None:
        raise InvalidRequest(
            "a sweep needs seeds to find its clips again; give numbers, or leave seed out for 0",
            field="seed",
        )
    if name != "begin_with" or given is None:
        return plain_number(given)
    return open_source(given) if isinstance(given, str | Path | Source) else given


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
    limits = field_schema(name)
    for end in given:
        if not limits.get("minimum", end) <= end <= limits.get("maximum", end):
            raise InvalidRequest(
                f"{name} must be {limit_of(name)}, got {short(end)}", field=name, value=end
            )
    if name == "top_k":
        return min(int(low + position * (high - low + 1)), int(high))
    return min(max(round(float(low + position * (high - low)), 4), float(low)), float(high))
