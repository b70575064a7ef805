"""`report`: a run's page."""

from __future__ import annotations

from pathlib import Path

import click

from musicgen_lab.cli.options import number


def names(text: str | None) -> list[str] | None:
    """Read names by comma."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--title", help="The report's heading.")
@click.option("--features", help="Names of the features to look at, by comma.")
@click.option("--self-contained", is_flag=True, help="Put the sounds inside the page, up to 32 MB.")
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
    run: Path,
    title: str | None,
    features: str | None,
    self_contained: bool,
    parameters: tuple[tuple[str, str], ...],
    quiet: bool,
) -> int:
    """Make report.ipynb and report.html in a run's folder."""
    from musicgen_lab.report import make_report

    values = {name: number(value) for name, value in parameters}
    page = make_report(
        run,
        parameters=values,
        title=title,
        features=names(features),
        self_contained=self_contained,
        progress=not quiet,
    )
    click.echo(page)
    return 0
