"""The `musicgen-lab` command: parse, call the library, print."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import Any

import click

from musicgen_lab.cli.bench import bench
from musicgen_lab.cli.compare import compare
from musicgen_lab.cli.exits import EXIT_BAD_USAGE, EXIT_INTERRUPTED, EXIT_SOME_FAILED, fail, show
from musicgen_lab.cli.listen import listen
from musicgen_lab.cli.make import generate, sweep
from musicgen_lab.cli.models import models
from musicgen_lab.cli.report import report
from musicgen_lab.cli.serve import serve
from musicgen_lab.errors import (
    MusicGenLabError,
    MusicGenLabWarning,
    ReportFailed,
    RunFolderUnwritable,
    packages_needed,
)

SHOW_TRACEBACK = "MUSICGEN_LAB_TRACEBACK"


def main() -> None:
    """Run the command; every error is one line on standard error and a non-zero exit code."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", MusicGenLabWarning)
    try:
        with packages_needed("this command"):
            code = cli.main(standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_BAD_USAGE
    except click.ClickException as error:
        message = error.format_message()
        if message.startswith("Got unexpected extra argument"):
            message += "; quote a text with spaces, and separate several values by commas alone"
        code = fail(message, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = fail("stopped", EXIT_INTERRUPTED)
    except (RunFolderUnwritable, ReportFailed) as error:
        code = fail(str(error), EXIT_SOME_FAILED)
    except MusicGenLabError as error:
        code = fail(str(error), EXIT_BAD_USAGE)
    except Exception as error:
        if os.environ.get(SHOW_TRACEBACK):
            traceback.print_exc()
        code = fail(
            f"{type(error).__name__}: {error} (set {SHOW_TRACEBACK}=1 to see where)",
            EXIT_SOME_FAILED,
        )
    sys.exit(code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    show(f"warning: {' '.join(str(message).split())}", err=True)


class Commands(click.Group):
    """A group that lists its commands in the order in which they are usually needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which they were added."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="musicgen-lab")
def cli() -> None:
    r"""Sweep MusicGen's sampling parameters, hear and measure what each one does.

    \b
    To begin:
      musicgen-lab sweep --prompt "calm guitar" --temperature 0.7,1,1.3
          --seed 0:3 --duration 4 --out runs/first --report
    """


for command in (generate, sweep, report, compare, listen, serve, models, bench):
    cli.add_command(command)
