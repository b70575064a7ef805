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
    default="listener",
    show_default=True,
    metavar="NAME",
    help="Who listens; a later session of the same name goes on where this one ends.",
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
    help="0 takes a free one.",
)
def listen(run: Path, listener: str, mode: str, port: int) -> None:
    """Compare the clips of a run in a browser without knowing which ones they are.

    Answers are appended to the run's folder as they are given; the report shows what they say.
    """
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise PackageMissing(
            f"listening in a browser needs {', '.join(missing)}, not installed here: "
            "pip install 'musicgen-lab[serve]'"
        )
    from musicgen_lab.listening.blind.server import serve
    from musicgen_lab.listening.blind.session import BlindSession, Mode
    from musicgen_lab.runs.run_table import RunTable

    session = BlindSession(RunTable.open(run), listener, cast(Mode, mode))
    before = session.answered
    serve(session, port=port)
    added = session.answered - before
    click.echo(
        f"{added} answer{'s' * (added != 1)} of {listener} added to "
        f"{session.table.run.answers.folder}; musicgen-lab report {run} shows what they say"
    )
