"""`listen`: a blind test of a run's clips, in the browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import cast

import click

from musicgen_lab.errors import PackageMissing


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--listener",
    metavar="NAME",
    help="Who listens; a later session of the same name goes on where this one ends. The page asks "
    "if it is not given.",
)
@click.option(
    "--mode",
    default="pairs",
    show_default=True,
    type=click.Choice(["pairs", "abx", "rate"]),
    help="pairs: which of two clips is better. abx: can a parameter be heard at all? rate: 0 to "
    "100 for quality and for fit to the prompt.",
)
@click.option(
    "--port",
    default=0,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port of the page; 0 takes a free one.",
)
def listen(run: Path, listener: str | None, mode: str, port: int) -> None:
    """Listen blind to the clips of a run, in a browser.

    Answers are appended to the run's folder as they are given; the report shows what they say.
    """
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise PackageMissing(
            f"listening in a browser needs {', '.join(missing)}, not installed here: "
            "pip install 'musicgen-lab[serve]'"
        )
    from musicgen_lab.listening.blind.server import serve
    from musicgen_lab.listening.blind.session import Mode
    from musicgen_lab.runs.run_table import RunTable

    table = RunTable.open(run)
    added = serve(table, listener, cast(Mode, mode), port=port)
    click.echo(
        f"{added} answer{'s' * (added != 1)} added to {table.run.answers.folder}; "
        f"musicgen-lab report {run} shows what they say"
    )
