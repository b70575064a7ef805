"""`report`: a run's page."""

from __future__ import annotations

from pathlib import Path

import click

from musicgen_lab.cli.options import number


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--title", help="The report's heading.")
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
    run: Path, title: str | None, parameters: tuple[tuple[str, str], ...], quiet: bool
) -> int:
    """Make report.ipynb and report.html in a run's folder."""
    from musicgen_lab.report import make_report

    values = {name: number(value) for name, value in parameters}
    click.echo(make_report(run, parameters=values, title=title, progress=not quiet))
    return 0
