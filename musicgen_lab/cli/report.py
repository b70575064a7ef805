"""`report`: the page of a run, or of many studies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from musicgen_lab.cli.exits import EXIT_SOME_FAILED
from musicgen_lab.cli.options import (
    BACKEND_OPTIONS,
    backend_options,
    number,
    page_options,
    refuse_given,
)
from musicgen_lab.formatting import split_names

if TYPE_CHECKING:
    from musicgen_lab.backends import Backend


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--batch",
    "studies",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of RUN: a YAML file of studies to run and report, with an index page.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Another folder for the report, to which the clips are copied, as for a run that can only "
    "be read. With --batch: the folder of the studies.  [default: the run's; with --batch, named "
    "like the file, beside it]",
)
@backend_options
@page_options
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    help="What to keep, separated by commas: html (the page), ipynb (its notebook, with outputs). "
    "For a PDF, print the page from a browser.  [default: html,ipynb]",
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    nargs=2,
    metavar="NAME VALUE",
    help="A parameter of the report's notebook.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def report(
    run: Path | None,
    studies: Path | None,
    out: Path | None,
    open_backend: Callable[[], Backend],
    title: str | None,
    features: str | None,
    self_contained: bool | None,
    formats: str | None,
    parameters: tuple[tuple[str, str], ...],
    quiet: bool,
) -> int:
    """Make the report of a run, or of many studies.

    RUN is the folder that `sweep --out` made; report.html and report.ipynb are written into it. The
    options of backend and engine are for --batch, which makes the clips first.
    """
    from musicgen_lab.report.export import FORMATS
    from musicgen_lab.report.make import make_report

    if (run is None) == (studies is None):
        raise click.UsageError("give the folder of a run, or --batch with a file of studies")
    if studies is not None:
        if title or features or self_contained is not None or parameters:
            raise click.UsageError("with --batch, the report's options belong in the file")
        if formats is not None:
            raise click.UsageError("--format is for one run; a batch keeps pages and notebooks")
        return _batch(studies, out or studies.with_suffix(""), open_backend, quiet=quiet)
    refuse_given(BACKEND_OPTIONS, "is for --batch, which makes clips; leave it out")
    assert run is not None
    values = {name: number(value) for name, value in parameters}
    page = make_report(
        run,
        parameters=values,
        title=title,
        features=features,
        self_contained=self_contained,
        formats=FORMATS if formats is None else split_names(formats),
        out=out,
        progress=not quiet,
    )
    click.echo(page)
    return 0


def _batch(studies: Path, out: Path, open_backend: Callable[[], Backend], *, quiet: bool) -> int:
    """Run the studies in a file and print the path of their index."""
    from musicgen_lab.studies import read_studies, run_studies, write_index

    outcomes = run_studies(
        read_studies(studies),
        open_backend(),
        out,
        progress=not quiet,
        say=functools.partial(click.echo, err=True),
    )
    click.echo(write_index(outcomes, out, studies.stem))
    return EXIT_SOME_FAILED if any(outcome.error for outcome in outcomes) else 0
