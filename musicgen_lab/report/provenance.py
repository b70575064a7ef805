"""The provenance of a run's clips, and the command that reproduces them, as HTML."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from musicgen_lab.fields import SWEEP_ORDER
from musicgen_lab.runs.run_folder import SOURCES, RunFolder
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.runs.sources import map_values
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML

FACTS = {
    "model": "model and revision",
    "engine": "engine",
    "device": "device",
    "dtype": "precision",
    "gpu": "GPU",
    "lab_version": "MusicGen Lab",
}


def provenance(table: RunTable) -> HTML:
    """Return the provenance of the clips, and the command that reproduces them.

    Parameters
    ----------
    table : RunTable

    Returns
    -------
    IPython.display.HTML
    """
    return show(
        "report/provenance.html.j2",
        facts=[{"name": name, "lines": lines, "note": ""} for name, lines in _facts(table)],
        name=f"How to make {table.run.path.resolve().name} again",
        commands="\n\n".join(
            command(sweep["design"], table.records, table.run) for sweep in table.sweeps
        ),
    )


def _facts(table: RunTable) -> Iterator[tuple[str, list[str]]]:
    """Yield by what the clips were made, when they were requested, and what they took."""
    made = [record for record in table.records if record["status"] == "ok"]
    for name, label in FACTS.items():
        if values := _distinct(made, name):
            yield label, values
    yield "requested at", [_date(sweep["asked_at"]) for sweep in table.sweeps]
    yield "generation time", [f"{table.frame['elapsed_s'].sum():,.3g} s in total"]
    gpu_s, cost_usd = (table.frame[name].sum() for name in ("gpu_s", "cost_usd"))
    if gpu_s:
        yield "cost", [f"${cost_usd:,.4f} for {gpu_s:,.1f} GPU-seconds"]


def _date(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M %Z}"


def command(design: Mapping[str, Any], records: Sequence[Mapping[str, Any]], run: RunFolder) -> str:
    """Return the code that reproduces a design: a command where there is one, else Python.

    Every value is quoted, since a run folder may be untrusted.

    Parameters
    ----------
    design : Mapping
        As recorded in a run folder.
    records : sequence of Mapping
        Of its clips: `status`, `model`, `engine`, `device` and `dtype` are read.
    run : RunFolder
    """
    return cli_command(design, records, run) or python_code(design, records, run)


def cli_command(
    design: Mapping[str, Any], records: Sequence[Mapping[str, Any]], run: RunFolder
) -> str:
    """Return the command that reproduces a design, or "" if options cannot say it.

    They say grids only, without both values of a switch and without a field that is not given for
    some clips. Parameters are those of `command`.
    """
    lists = [values for values in design["fields"].values() if isinstance(values, list)]
    has_no_option = any(
        len(values) > 1 and any(value is None or isinstance(value, bool) for value in values)
        for values in lists
    )
    if design["kind"] != "grid" or has_no_option:
        return ""
    fields = _fields(design, run)
    fields.setdefault("model", _models(records)[:1])
    words = ["musicgen-lab", "sweep"]
    for name in sorted(fields, key=("prompt", *SWEEP_ORDER).index):
        values = fields[name] if isinstance(fields[name], list | tuple) else [fields[name]]
        option = f"--{name.replace('_', '-')}"
        if any(isinstance(value, str) for value in values):
            words += [word for value in values for word in (option, str(value))]
        elif name == "include_start":
            words += [f"--no-{option[2:]}"] if values == [False] else []
        elif values != [None]:
            words += [option, ",".join(_number(value) for value in values)]
    out = ["--out", run.path.resolve().name, "--report"]
    return shlex.join([*words, *_engine_options(records), *out])


def python_code(
    design: Mapping[str, Any], records: Sequence[Mapping[str, Any]], run: RunFolder
) -> str:
    """Return the Python that reproduces a design; parameters are those of `command`."""
    fields = _fields(design, run)
    # Another field would change the points of a sample, so the model is the backend's.
    made_with = _models(records)
    model = "" if "model" in fields or not made_with else f":{made_with[0]}"
    given = {name: _python(value) for name, value in fields.items()}
    if design["kind"] == "sample":
        given = {name: repr(design[name]) for name in ("seed", "replicates")} | given
    first = {"grid": None, "sample": "n", "rows": "rows"}[design["kind"]]
    arguments = [repr(_with_paths(design[first], run))] if first else []
    arguments += [f"{name}={text}" for name, text in given.items()]
    maker = {"grid": "", "sample": ".sample", "rows": ".from_rows"}[design["kind"]]
    return (
        "import musicgen_lab as lab\n\n"
        f"sweep = lab.Sweep{maker}({', '.join(arguments)})\n"
        f"sweep.run(lab.connect({f'local{model}'!r}), {run.path.resolve().name!r})"
    )


def _fields(design: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    fields = _with_paths(design["fields"], run)
    return {name: fields[name] for name in SWEEP_ORDER if name in fields}


def _models(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the model of every record that has one, without its revision."""
    models = [record["model"] for record in records]
    return [str(model).partition("@")[0] for model in models if isinstance(model, str)]


def _with_paths(design: Any, run: RunFolder) -> Any:
    """Return a design with the path of the run's own copy in the place of a source's digest."""
    sources = run.source_names

    def path_of(value: Any) -> Any:
        path = run.source_path(value) if isinstance(value, str) and value in sources else None
        return value if path is None else f"{run.path.resolve().name}/{SOURCES}/{path.name}"

    return map_values(path_of, design)


def _engine_options(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options of the engine, if all clips were made with the same ones."""
    made = [record for record in records if record["status"] == "ok"]
    ways = {(record["engine"], record["device"], record["dtype"]) for record in made}
    if len(ways) != 1 or not all(isinstance(part, str) for part in next(iter(ways))):
        return []
    ((engine, device, dtype),) = ways
    if engine.startswith("audiocraft"):
        return ["--engine", "audiocraft"]
    return [] if (device, dtype) == ("cpu", "float32") else ["--dtype", dtype]


def _distinct(records: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    values = dict.fromkeys(record[name] for record in records)
    return [str(value) for value in values if isinstance(value, str)]


def _number(value: float) -> str:
    """Format a number so that it is read back exactly: 1.0 as 1, a seed with all its digits."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _python(value: Any) -> str:
    """Format a design's field as Python: the range of a sample as a tuple."""
    if isinstance(value, Mapping):
        return repr((value["low"], value["high"]))
    is_single = isinstance(value, list) and len(value) == 1
    return repr(value[0] if is_single else value)
