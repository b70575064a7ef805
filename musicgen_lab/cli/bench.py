"""`bench`: the speed of several engines on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from musicgen_lab.cli.options import engine_options, number, refuse_given
from musicgen_lab.formatting import split_names

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from musicgen_lab.engine.options import EngineOptions
    from musicgen_lab.models.locate import ModelSource

IGNORED = {
    "mixed": ("clips", "grid", "seconds", "engines", "rounds", "peer_seconds", "busy"),
    "stream": ("engines", "peer_seconds", "busy"),
    "profile": ("engines", "rounds", "peer_seconds", "busy"),
}
"""The options that have no effect on a measurement, by the flag that selects it."""

SIZES = ("demo", "small", "medium", "large")


@click.command()
@click.option(
    "--size",
    type=click.Choice(SIZES),
    default="demo",
    show_default=True,
    help="The embedded model, or a released size with random weights, which do not affect speed.",
)
@click.option("--model", metavar="NAME|PATH", help="A model on this machine, instead of a size.")
@click.option("--clips", default=1, show_default=True, help="Clips with equal parameters.")
@click.option("--grid", metavar="5x5", help="Instead: temperatures x cfg_coefs, a clip per cell.")
@click.option("--seconds", default=8.0, show_default=True, help="Length of every clip.")
@click.option("--engines", default="lab,audiocraft", show_default=True, help="Separated by commas.")
@engine_options
@click.option("--rounds", default=3, show_default=True, help="The median is reported.")
@click.option(
    "--peer-seconds", type=float, help="Time the others on shorter clips, which favours them."
)
@click.option("--busy", default=0, show_default=True, help="Busy processes that run meanwhile.")
@click.option(
    "--profile", is_flag=True, help="Instead: the lab engine's time by classes of kernels."
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Instead: 25 clips of 1 to 30 s in the lab engine, relative to an always full batch.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Instead: stream the clips, and measure how soon they are heard and if sound runs out.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per engine.")
def bench(
    size: str,
    model: str | None,
    clips: int,
    grid: str | None,
    seconds: float,
    engines: str,
    options: EngineOptions,
    rounds: int,
    peer_seconds: float | None,
    busy: int,
    profile: bool,
    mixed: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """Time engines on the same work, one after another in one run.

    Engines: lab makes a grid in one batch, audiocraft and transformers clip by clip;
    audiocraft-batch and transformers-batch make a batch of equal parameters, their best case.
    """
    given = [
        name
        for name, is_given in (("mixed", mixed), ("stream", stream), ("profile", profile))
        if is_given
    ]
    if len(given) > 1:
        raise click.UsageError(f"give --{given[0]} or --{given[1]}, not both")
    for name in given:
        refuse_given(IGNORED[name], f"has no effect with --{name}; leave it out")
    if grid is not None:
        refuse_given(["clips"], "has no effect with --grid, a clip per cell; leave it out")
    from musicgen_lab.bench import run as benchmark
    from musicgen_lab.bench.mixed import measure_mixed
    from musicgen_lab.bench.profile import format_profile
    from musicgen_lab.bench.stream import measure_streams
    from musicgen_lab.bench.table import describe_machine, format_table
    from musicgen_lab.conversion.prepare import prepare
    from musicgen_lab.models.locate import EMBEDDED, locate

    source: ModelSource | None = None
    if model is not None or size == EMBEDDED:
        source = locate(model or EMBEDDED)
    folder: Path | None = prepare(source) if source is not None else None
    label = source.name if source is not None else size
    work: dict[str, Any] = {
        "clips": clips,
        "grid": _read_grid(grid),
        "seconds": seconds,
        "options": options,
    }
    results: Sequence[DataclassInstance]
    if not (mixed or stream or profile):
        results = rows = benchmark.run(
            size=label,
            model=folder,
            engines=split_names(engines),
            rounds=rounds,
            peer_seconds=peer_seconds,
            busy=busy,
            **work,
        )
        text = format_table(rows)
    else:
        with benchmark.model_of_size(label, folder) as opened:
            if mixed:
                results = [measure_mixed(opened, options=options)]
            elif stream:
                results = [measure_streams(opened, rounds=rounds, **work)]
            else:
                results = classes = benchmark.profile_lab(opened, **work)
        text = format_profile(classes) if profile else f"{label}: {results[0]}"
    lines = [json.dumps(asdict(result)) for result in results]
    click.echo("\n".join(lines) if as_json else text)
    click.echo(describe_machine(), err=as_json)


def _read_grid(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = [number(side) for side in text.split("x")]
    if len(sides) == 2 and isinstance(sides[0], int) and isinstance(sides[1], int):
        return sides[0], sides[1]
    raise click.BadParameter(f"--grid must be like 5x5, got {text!r}")
