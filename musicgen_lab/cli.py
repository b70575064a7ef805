"""The `musicgen-lab` command: parse, call the library, print."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from musicgen_lab.errors import (
    InvalidRequest,
    MusicGenLabError,
    MusicGenLabWarning,
    ReportFailed,
    RunFolderUnwritable,
)

EXIT_SOME_FAILED = 1
EXIT_BAD_USAGE = 2
EXIT_INTERRUPTED = 130  # what shells expect after Ctrl-C
ASK_ABOVE_CLIPS = 1000
SHOW_TRACEBACK = "MUSICGEN_LAB_TRACEBACK"

Command = Callable[..., Any]


def main() -> None:
    """Run the command; every error is one line on standard error and a non-zero exit code."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", MusicGenLabWarning)
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_BAD_USAGE
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = _fail("stopped", EXIT_INTERRUPTED)
    except (RunFolderUnwritable, ReportFailed) as error:
        code = _fail(str(error), EXIT_SOME_FAILED)
    except MusicGenLabError as error:
        code = _fail(str(error), EXIT_BAD_USAGE)
    except Exception as error:
        if os.environ.get(SHOW_TRACEBACK):
            traceback.print_exc()
        code = _fail(
            f"{type(error).__name__}: {error} (set {SHOW_TRACEBACK}=1 to see where)",
            EXIT_SOME_FAILED,
        )
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {message}", err=True)


def _number(text: str) -> int | float | str:
    """Read a number; anything else stays text, for the request to refuse by name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(texts: tuple[str, ...]) -> list[int | float | str]:
    """Read `0.7,1.0`, repeated options, and ranges such as `0:8` (0 to 7) or `0:8:2`."""
    values: list[int | float | str] = []
    for text in ",".join(texts).split(","):
        ends = [_number(part) for part in text.split(":")]
        if len(ends) in (2, 3) and all(isinstance(end, int) for end in ends):
            try:
                values.extend(range(*ends))  # type: ignore[arg-type]
            except ValueError:
                raise click.BadParameter(f"{text} is not a range: its step is 0") from None
        else:
            values.append(_number(text.strip()))
    return values


def request_options(*, many: bool) -> Callable[[Command], Command]:
    """Give a command an option for every field of a request, each with one value or many."""
    several = "; several by comma or by repeating it" if many else ""
    helps = {
        "duration": f"Length in seconds, 1 to 30{several}.  [default: 8]",
        "temperature": f"Sampling temperature; 0 is greedy{several}.  [default: 1]",
        "top_k": f"Sample from the k likeliest tokens{several}.  [default: 250]",
        "top_p": f"Nucleus sampling; replaces top-k when above 0{several}.  [default: 0]",
        "cfg_coef": f"Classifier-free guidance coefficient{several}.  [default: 3]",
        "seed": "Seeds: 0,1,2 or a range 0:8.  [default: 0]" if many else "Drawn when not given.",
    }

    def decorate(command: Command) -> Command:
        model_help = "demo, a Hub id, or the path of a checkpoint folder."
        command = click.option("--model", multiple=many, metavar="NAME|PATH", help=model_help)(
            command
        )
        for name in reversed(helps):
            option = f"--{name.replace('_', '-')}"
            command = click.option(option, name, multiple=many, metavar="X", help=helps[name])(
                command
            )
        text_help = "What to make." + (" Repeat it for several." if many else "")
        command = click.option(
            "--prompt", required=True, multiple=many, metavar="TEXT", help=text_help
        )(command)

        @functools.wraps(command)
        def with_fields(*args: Any, **options: Any) -> Any:
            given = {name: options.pop(name) for name in ("prompt", *helps, "model")}
            fields = {name: value for name, value in given.items() if value not in (None, ())}
            for name in helps.keys() & fields.keys():
                fields[name] = _numbers(fields[name]) if many else _number(fields[name])
            for name in ("prompt", "model"):
                if many and name in fields:
                    fields[name] = list(fields[name])
            return command(*args, fields=fields, **options)

        return with_fields

    return decorate


def backend_options(command: Command) -> Command:
    """Give a command the options that say who makes the clips."""
    command = click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda or another of torch's."
    )(command)
    return click.option(
        "--backend",
        default="local",
        show_default=True,
        metavar="local",
        help="Who makes the clips.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="musicgen-lab")
def cli() -> None:
    """Sweep MusicGen's sampling parameters, hear and measure what each one does."""


@cli.command()
@request_options(many=False)
@backend_options
@click.option("--out", type=click.Path(path_type=Path), default="clip.wav", show_default=True)
def generate(fields: dict[str, Any], backend: str, device: str, out: Path) -> int:
    """Make one clip and write it as a WAV file."""
    from musicgen_lab.atomic import write_atomically
    from musicgen_lab.backends import connect
    from musicgen_lab.clip import Failure
    from musicgen_lab.request import GenerationRequest, ignored_by_choice

    if out.suffix.lower() != ".wav":
        raise InvalidRequest(f"--out must end in .wav, got {out}")
    if not out.absolute().parent.is_dir():
        raise InvalidRequest(f"--out must be in a folder that exists, got {out}")
    request = GenerationRequest(**fields)
    for note in ignored_by_choice(request, fields):
        warnings.warn(note, MusicGenLabWarning, stacklevel=1)
    maker = connect(backend, device=device)
    (result,) = maker.generate([maker.resolve(request)])
    if isinstance(result, Failure):
        return _fail(f"{result.error_type}: {result.message}", EXIT_SOME_FAILED)
    write_atomically(out, result.wav_bytes())
    made = f"{result.duration_s:g} s at {result.sample_rate:,} Hz in {result.elapsed_s:.1f} s"
    click.echo(f"{made}, seed {result.request.seed}, {result.request.model}", err=True)
    click.echo(out)
    return 0


@cli.command()
@request_options(many=True)
@backend_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be made, and stop.")
@click.option("--report", "with_report", is_flag=True, help="Make the report afterwards.")
@click.option("--keep-failures", is_flag=True, help="Do not try failed requests again.")
@click.option("--yes", is_flag=True, help=f"Do not ask before {ASK_ABOVE_CLIPS:,} clips or more.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def sweep(
    fields: dict[str, Any],
    backend: str,
    device: str,
    out: Path,
    plan_only: bool,
    with_report: bool,
    keep_failures: bool,
    yes: bool,
    quiet: bool,
) -> int:
    """Make every combination of the given values; run it again to resume."""
    from musicgen_lab.backends import connect
    from musicgen_lab.sweep import Sweep

    grid = Sweep(**fields)
    for note in grid.notes:
        warnings.warn(note, MusicGenLabWarning, stacklevel=1)
    maker = connect(backend, device=device)
    plan = grid.plan(maker, out)
    if plan_only:
        click.echo(str(plan))
        return 0
    if plan.to_make >= ASK_ABOVE_CLIPS and not yes:
        click.echo(str(plan), err=True)
        if not sys.stdin.isatty():
            raise InvalidRequest(f"{plan.to_make:,} clips are many; add --yes to make them")
        click.confirm(f"Make {plan.to_make:,} clips?", abort=True, err=True)
    click.echo(_announce(plan.to_make, plan.clips, maker.name), err=True)
    try:
        results = grid.run(maker, out, keep_failures=keep_failures, progress=not quiet)
    except KeyboardInterrupt:
        made = grid.plan(maker, out).present
        return _fail(
            f"stopped; {made} of {plan.clips} clips are made and kept: "
            "run the same command again to make the rest",
            EXIT_INTERRUPTED,
        )
    after = grid.plan(maker, out)
    click.echo(
        f"{after.present - plan.present} made, {plan.present} already there, "
        f"{after.failed} failed, of {after.clips} clips",
        err=True,
    )
    if after.failed:
        failures = results.frame[results.frame["status"] == "failed"]
        click.echo(f"the first failure: {failures['error'].iloc[0]}", err=True)
    path = results.results_path
    if with_report:
        from musicgen_lab.report import make_report

        path = make_report(out)
    click.echo(path)
    return EXIT_SOME_FAILED if after.failed else 0


def _announce(to_make: int, clips: int, backend: str) -> str:
    if not to_make:
        return f"nothing new to make: all {clips} clips are there"
    if to_make == clips:
        return f"making {clips} clips with {backend}"
    return f"making the {to_make} of {clips} clips that are missing, with {backend}"


@cli.command()
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
def report(run: Path, title: str | None, parameters: tuple[tuple[str, str], ...]) -> int:
    """Make report.ipynb and report.html in a run's folder."""
    from musicgen_lab.report import make_report

    values = {name: _number(value) for name, value in parameters}
    click.echo(make_report(run, parameters=values, title=title))
    return 0
