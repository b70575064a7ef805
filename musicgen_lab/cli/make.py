"""`generate` and `sweep`: make clips."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from musicgen_lab.cli.exits import EXIT_INTERRUPTED, EXIT_SOME_FAILED, fail, show
from musicgen_lab.cli.options import backend_options, request_options
from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning

if TYPE_CHECKING:
    from musicgen_lab.backends import Backend
    from musicgen_lab.plan import Mismatched
    from musicgen_lab.sweep import Sweep

ASK_ABOVE_CLIPS = 1000


@click.command()
@request_options(many=False)
@backend_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="clip.wav",
    show_default=True,
    help="The file to write.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def generate(
    fields: dict[str, Any], open_backend: Callable[[], Backend], out: Path, quiet: bool
) -> int:
    """Make one clip and write it as a WAV file."""
    from musicgen_lab.backends import KnowsCodebooks, KnowsModels
    from musicgen_lab.backends.prompts import prompt_notes
    from musicgen_lab.clip import Failure, conversion_note
    from musicgen_lab.fields import TOP_K_MAX
    from musicgen_lab.progress import ProgressBar
    from musicgen_lab.request import GenerationRequest, ignored_by_choice
    from musicgen_lab.runs.atomic_io import write_atomically
    from musicgen_lab.runs.sources import open_source

    if out.suffix.lower() != ".wav":
        raise InvalidRequest(f"--out must end in .wav, got {out}")
    if not out.absolute().parent.is_dir():
        raise InvalidRequest(f"--out must be in a folder that exists, got {out}")
    if out.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise InvalidRequest(f"--out must be a file that can be written, got {out}")
    if "begin_with" in fields:
        fields["begin_with"] = open_source(fields["begin_with"])
    request = GenerationRequest(**fields)
    backend = open_backend()
    request = backend.resolve(request)
    size = TOP_K_MAX
    if isinstance(backend, KnowsCodebooks):
        size = backend.codebook_size(str(request.model))
    for note in (*ignored_by_choice(request, fields, size), *prompt_notes([request], backend)):
        warnings.warn(note, MusicGenLabWarning, stacklevel=1)
    here = isinstance(backend, KnowsModels)
    waiting = "opening the model" if here else f"waiting for {backend.name}"
    with ProgressBar([request], shown=not quiet, waiting=waiting) as bar:
        (result,) = backend.generate([request], on_progress=bar.advance)
        bar.finish(request, failed=isinstance(result, Failure))
    if isinstance(result, Failure):
        return fail(f"{result.error_type}: {result.message}", EXIT_SOME_FAILED)
    if note := conversion_note(result.provenance):
        warnings.warn(note, MusicGenLabWarning, stacklevel=1)
    write_atomically(out, result.wav_bytes())
    made = f"{result.duration_s:g} s at {result.sample_rate:,} Hz in {result.elapsed_s:.1f} s"
    show(f"{made}, seed {result.request.seed}, {result.request.model}", err=True)
    click.echo(out)
    return 0


@click.command()
@request_options(many=True)
@click.option(
    "--prompt-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Prompts, one a line; or a CSV or TSV file whose columns are fields, a combination a row.",
)
@backend_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be made, and stop.")
@click.option("--report", "with_report", is_flag=True, help="Make the report afterwards.")
@click.option("--keep-failures", is_flag=True, help="Do not try failed requests again.")
@click.option(
    "--remake",
    "mismatched",
    flag_value="remake",
    help="Make clips again that another engine made, or that have another precision.",
)
@click.option(
    "--only-matching",
    "mismatched",
    flag_value="refuse",
    help="Stop where there are such clips. Without either they are kept, with a warning.",
)
@click.option("--yes", is_flag=True, help=f"Do not ask before {ASK_ABOVE_CLIPS:,} clips or more.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def sweep(
    fields: dict[str, Any],
    prompt_file: Path | None,
    open_backend: Callable[[], Backend],
    out: Path,
    plan_only: bool,
    with_report: bool,
    keep_failures: bool,
    mismatched: Mismatched | None,
    yes: bool,
    quiet: bool,
) -> int:
    """Make clips of all combinations of the given values.

    Run it again to resume: clips that are there are kept.

    An option takes several values separated by commas, repeated, or as a range: 0:8 is the whole
    numbers 0 to 7, 0.5:0.9:0.1 is 0.5, 0.6, 0.7, 0.8, 0.9. Ends with the path of the run folder, or
    of its report.
    """
    backend = open_backend()
    plan = _sweep(fields, prompt_file).plan(backend, out, mismatched=mismatched or "keep")
    for note in plan.notes:
        warnings.warn(note, MusicGenLabWarning, stacklevel=1)
    if plan_only:
        show(str(plan))
        return 0
    if plan.to_make >= ASK_ABOVE_CLIPS and not yes:
        show(str(plan), err=True)
        if not sys.stdin.isatty():
            raise InvalidRequest(f"{plan.to_make:,} clips are many; add --yes to make them")
        click.confirm(f"Make {plan.to_make:,} clips?", abort=True, err=True)
    click.echo(_announce(plan.to_make, plan.clips, backend.name), err=True)
    try:
        results = plan.run(keep_failures=keep_failures, progress=not quiet)
    except KeyboardInterrupt as stop:
        return fail(f"stopped; {stop}", EXIT_INTERRUPTED)
    rows = results.table.rows
    failures = rows[rows["status"] == "failed"]
    finished = rows[rows["status"] == "ok"]
    made = int(finished["key"].isin(list(results.made_here)).sum())
    by_others = len(finished) - plan.present - made
    click.echo(
        f"{made} made, {f'{by_others} made by other processes, ' if by_others else ''}"
        f"{plan.present} already there, {len(failures)} failed, of {plan.clips} clips",
        err=True,
    )
    if len(failures):
        show(f"the first failure: {failures['error'].iloc[0]}", err=True)
    if plan.cost is not None:
        click.echo(plan.beside(results), err=True)
    path = results.folder
    if with_report:
        from musicgen_lab.report.make import make_report

        path = make_report(results.table.run, progress=not quiet)
    click.echo(path)
    return EXIT_SOME_FAILED if len(failures) else 0


def _sweep(fields: dict[str, Any], prompt_file: Path | None) -> Sweep:
    """Make the sweep of the options, and of a file of prompts or rows."""
    from musicgen_lab.cli.prompt_file import read_prompts, read_rows
    from musicgen_lab.sweep import Sweep

    if prompt_file is None:
        if "prompt" not in fields:
            raise click.UsageError("Missing option '--prompt' or '--prompt-file'.")
        return Sweep(**fields)
    if prompt_file.suffix.lower() in (".csv", ".tsv"):
        return Sweep.from_rows(read_rows(prompt_file), **fields)
    if "prompt" in fields:
        raise click.UsageError("give --prompt or --prompt-file, not both")
    return Sweep(prompt=read_prompts(prompt_file), **fields)


def _announce(to_make: int, clips: int, backend: str) -> str:
    asked = f"{clips} clip{'s' if clips != 1 else ''}"
    if not to_make:
        return f"nothing new to make: {f'all {asked} are' if clips != 1 else 'the clip is'} there"
    if to_make == clips:
        return f"making {asked} with {backend}"
    return f"making {to_make} of {asked}, as the others are there, with {backend}"
