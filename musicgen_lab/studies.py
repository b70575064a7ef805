"""Batches of studies: sweeps from one file, a report for each, and an index page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest, MusicGenLabError
from musicgen_lab.fields import REQUEST_FIELDS
from musicgen_lab.formatting import short
from musicgen_lab.player import base_style
from musicgen_lab.report.make import check_report_parameters, make_report
from musicgen_lab.report.sentences import find
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.runs.run_folder import refuse_run
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.study_tables import StudyTables
from musicgen_lab.sweep import Sweep
from musicgen_lab.templating import render

if TYPE_CHECKING:
    from ruamel.yaml.error import YAMLError

    from musicgen_lab.backends import Backend

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
INDEX = "index.html"  # beside the studies' folders
EFFECTS_SHOWN = 3
OWN_KEYS = ("name", "title", "report")
TITLE_MAX_CHARACTERS = 1000
VALUES_MAX = 1_000_000  # of a file, those behind aliases as often as they are referred to
DEPTH_MAX = 6  # the file, studies, a study, its report, a parameter, a value


@dataclass(frozen=True)
class Study:
    """One sweep and the options of its report.

    Attributes
    ----------
    name : str
        Of its folder.
    title : str
        The report's heading; the prompt when empty.
    sweep : Sweep
    parameters : Mapping
        Of the report's notebook.
    """

    name: str
    title: str
    sweep: Sweep
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a study.

    Attributes
    ----------
    study : Study
    error : str
        Why there is no report; empty when there is one.
    clips, failed : int
        Clips made, and requests that failed.
    effects : tuple of str
        The significant effects, in sentences, the most significant first.
    """

    study: Study
    error: str = ""
    clips: int = 0
    failed: int = 0
    effects: tuple[str, ...] = ()


def read_studies(path: str | Path) -> list[Study]:
    """Read and validate a file of studies, before anything is made.

    The file is YAML: `studies`, a list whose entries have a `name`, the fields of a sweep with
    one value or a list each, and, if wanted, a `title` and the parameters of the `report`.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    InvalidRequest
        When it cannot be read, a name or a field is unknown or misspelt, a value is outside its
        limits, or two studies have the same name.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not YAML: it is not UTF-8 text") from error
    except YAMLError as error:
        raise InvalidRequest(f"{path} is not YAML: {_problem(error)}") from error
    except RecursionError:
        raise InvalidRequest(f"{path} is nested too deeply") from None
    if _count_values(content, {}) > VALUES_MAX:
        raise InvalidRequest(
            f"{path} stands for more than {VALUES_MAX:,} values, or is nested more than "
            f"{DEPTH_MAX} deep"
        )
    if not isinstance(content, dict) or set(content) != {"studies"}:
        raise InvalidRequest(f"{path} must hold one key, studies, with a list under it")
    entries = content["studies"]
    if not isinstance(entries, list) or not entries:
        raise InvalidRequest(f"studies in {path} must be a list with at least one study")
    studies = [_study(entry, number) for number, entry in enumerate(entries, 1)]
    names = [study.name.lower() for study in studies]  # A and a are one folder on some systems
    for study in studies:
        if names.count(study.name.lower()) > 1:
            raise InvalidRequest(
                f"two studies are called {study.name!r}; give each its own name, "
                "different in more than upper and lower case"
            )
    return studies


def _count_values(content: Any, known: dict[int, int], depth: int = 1) -> int:
    """Count the values in lists and mappings; more than `VALUES_MAX` where they are too deep."""
    if not isinstance(content, dict | list):
        return 1
    if depth > DEPTH_MAX:
        return VALUES_MAX + 1
    if id(content) not in known:
        inside = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count_values(value, known, depth + 1) for value in inside)
    return known[id(content)]


def _problem(error: YAMLError) -> str:
    """Return what is wrong in a YAML file, and in which line."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or error}{where}"


def _study(entry: Any, number: int) -> Study:
    """Check one entry; errors say which one it is."""
    if not isinstance(entry, dict) or entry.get("name") is None:
        raise InvalidRequest(f"study {number} has no name; give it one, such as name: guitar")
    name = entry["name"]
    if not isinstance(name, str):
        raise InvalidRequest(
            f"study {number} is called {name!r}, which is not text; quote it: name: '{name}'"
        )
    if not NAME.fullmatch(name) or name == INDEX:
        raise InvalidRequest(
            f"study {number} is called {name!r}; a name becomes a folder beside {INDEX}: at most "
            "100 letters, digits, . _ and -"
        )
    for key in entry:
        if key not in (*OWN_KEYS, *REQUEST_FIELDS):
            raise InvalidRequest(
                f"study {name!r} has no field {key!r}; there are "
                f"{', '.join((*OWN_KEYS, *REQUEST_FIELDS))}",
                field=str(key),
            )
    parameters, title = entry.get("report") or {}, entry.get("title") or ""
    if not isinstance(title, str) or len(title) > TITLE_MAX_CHARACTERS:
        raise InvalidRequest(
            f"the title of study {name!r} must be text of at most {TITLE_MAX_CHARACTERS:,} "
            f"characters, got {short(title)}",
            field="title",
        )
    try:
        if not isinstance(parameters, dict):
            raise InvalidRequest(f"report must be parameters by name, got {short(parameters)}")
        check_report_parameters(parameters)
        fields = {field: value for field, value in entry.items() if field in REQUEST_FIELDS}
        for field, value in fields.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(one, dict | list) for one in values):
                raise InvalidRequest(
                    f"{field} must be one value or a list of values, got {short(value)}",
                    field=field,
                )
        return Study(name, title, Sweep(**fields), parameters)
    except InvalidRequest as error:
        raise InvalidRequest(f"study {name!r}: {error}", field=error.field) from error
    except TypeError as error:
        raise InvalidRequest(f"study {name!r}: {error}") from error


def run_studies(
    studies: list[Study],
    backend: Backend,
    folder: Path,
    *,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every study and make its report; one that fails does not stop the others.

    Run it again to resume: finished clips are kept.

    Parameters
    ----------
    studies : list of Study
    backend : Backend
    folder : Path
        Each study has a run folder of its name in it.
    progress : bool
        Show bars.
    say : callable
        Called with a line about each study that starts.

    Returns
    -------
    list of Outcome
        In the order of the studies.

    Raises
    ------
    InvalidRequest
        When the folder is a run.
    """
    refuse_run(folder)
    outcomes = []
    for number, study in enumerate(studies, 1):
        say(f"study {number} of {len(studies)}: {study.name}")
        try:
            outcomes.append(_run(study, backend, folder / study.name, progress=progress))
        except KeyboardInterrupt:
            raise
        except MusicGenLabError as error:
            outcomes.append(Outcome(study, error=str(error)))
        except Exception as error:  # of any kind: the other studies are not affected
            outcomes.append(Outcome(study, error=f"{type(error).__name__}: {error}"))
        if outcomes[-1].error:
            say(f"study {study.name} failed: {outcomes[-1].error}")
    return outcomes


def write_index(outcomes: Sequence[Outcome], folder: Path, title: str) -> Path:
    """Write `index.html`: studies with the most significant effects first, failed ones last.

    Parameters
    ----------
    outcomes : sequence of Outcome
    folder : Path
        The folder of the studies' run folders.
    title : str

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunFolderUnwritable
        When it cannot be written.
    """
    from markupsafe import Markup

    ranked = sorted(outcomes, key=lambda outcome: (bool(outcome.error), -len(outcome.effects)))
    page = render(
        "report/studies.html.j2",
        title=title,
        entries=[_entry(outcome) for outcome in ranked],
        failed=sum(bool(outcome.error) for outcome in outcomes),
        shown=EFFECTS_SHOWN,
        base_style=Markup(base_style()),
    )
    write_atomically(folder / INDEX, page.encode("utf-8"))
    return folder / INDEX


def _entry(outcome: Outcome) -> dict[str, Any]:
    study = outcome.study
    prompts = list(dict.fromkeys(request.prompt for request in study.sweep.requests))
    return {
        "name": study.name,
        "title": study.title or study.name,
        "prompts": f"“{prompts[0]}”" if len(prompts) == 1 else f"{len(prompts)} prompts",
        "swept": " × ".join(study.sweep.swept) or "one request",
        "clips": outcome.clips,
        "failed": outcome.failed,
        "error": outcome.error,
        "effects": outcome.effects,
    }


def _run(study: Study, backend: Backend, folder: Path, *, progress: bool) -> Outcome:
    results = study.sweep.run(backend, folder, progress=progress)
    rows = results.table.rows
    failures = rows[rows["status"] == "failed"]
    made = len(rows) - len(failures)
    if not made:
        return Outcome(
            study, error=f"no clip could be made: {failures['error'].iloc[0]}", failed=len(failures)
        )
    run = results.table.run
    make_report(run, parameters=study.parameters, title=study.title or None, progress=progress)
    # As the report does, of all clips in the folder: the study may have been another one before.
    findings = find(StudyTables.of(RunTable.of(run), study.parameters.get("features")))
    return Outcome(study, clips=made, failed=len(failures), effects=tuple(findings.significant))
