"""`compare`: two runs, by pairs of clips."""

from __future__ import annotations

from pathlib import Path

import click

from musicgen_lab.cli.options import page_options


@click.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The report's folder.  [default: RUN_B-against-RUN_A, beside RUN_B]",
)
@page_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def compare(
    run_a: Path,
    run_b: Path,
    out: Path | None,
    title: str | None,
    features: str | None,
    self_contained: bool | None,
    quiet: bool,
) -> int:
    """Report how two runs differ, such as those of two models.

    Clips are compared in pairs with the same request otherwise.
    """
    from musicgen_lab.report.compare import make_comparison

    first, second = run_a.resolve(), run_b.resolve()
    beside = run_b.parent if run_b.name == second.name else second.parent  # "." is in itself
    page = make_comparison(
        run_a,
        run_b,
        out or beside / f"{second.name}-against-{first.name}",
        features=features,
        title=title,
        self_contained=self_contained,
        progress=not quiet,
    )
    click.echo(page)
    return 0
