"""Options shared by several commands, and the parsing of their values."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection
from dataclasses import asdict
from fractions import Fraction
from typing import Any, Literal

import click
from click.core import ParameterSource

from musicgen_lab.engine.options import DEFAULT_OPTIONS, EngineOptions
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import REQUEST_FIELDS, REQUESTS_MAX, field_schema, field_type, limit_of
from musicgen_lab.request import GenerationRequest

BACKEND_OPTIONS = ("backend", "engine", "device", "dtype", "max_clips", "cuda_graphs")
Command = Callable[..., Any]
METAVARS = {"begin_with": "FILE|RUN#KEY"}
BEGIN_WITH = "Continue a sound: a WAV, FLAC, MP3 or Ogg file, or a clip of a run by its key."


def number(text: str) -> int | float | str:
    """Parse a number; anything else stays text, which the request rejects by name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def numbers(texts: tuple[str, ...], field: str) -> list[int | float | str]:
    """Read a field's values: `0.7,1.0`, repeated options, and ranges.

    A range of a whole-number field is as Python's: `0:8` is 0 to 7, `0:8:2` is 0, 2, 4, 6. That of
    any other number has its end: `0.5:0.9:0.1` is 0.5 to 0.9.
    """
    values: list[int | float | str] = []
    for text in ",".join(texts).split(","):
        ends = [number(part.strip()) for part in text.split(":")]
        if len(ends) in (2, 3) and all(_is_finite(end) for end in ends):
            values.extend(_range(text, field))
        else:
            values.append(number(text.strip()))
    _check_decimal_comma(texts, field)
    return values


def _is_finite(value: int | float | str) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _range(text: str, field: str) -> list[int | float]:
    """Read a range exactly: adding steps up in binary would be off by a rounding error."""
    parts = [part.strip() for part in text.split(":")]
    start, end, step = (Fraction(part) for part in (*parts, "1")[:3])
    whole = all(part.denominator == 1 for part in (start, end, step))
    if len(parts) == 2 and not whole:
        raise click.BadParameter(f"{text} needs a step, such as {text}:0.1")
    if step == 0:
        raise click.BadParameter(f"{text} is not a range: its step is 0")
    has_end = field_type(field) is float
    if start == end and not has_end:
        raise click.BadParameter(f"{text} holds no number: its end is left out; write {start}")
    if (end - start) / step < 0:
        turned = ":".join((parts[1], parts[0], *parts[2:]))
        raise click.BadParameter(
            f"{text} holds no number: it starts at {parts[0]} and ends at {parts[1]} in steps of "
            f"{step}; did you mean {turned}?"
        )
    count = math.floor((end - start) / step) + 1
    if not has_end and (end - start) % step == 0:
        count -= 1
    if count > REQUESTS_MAX:
        raise click.BadParameter(
            f"{text} is {count:,} values; a sweep has at most {REQUESTS_MAX:,} clips"
        )
    kind = int if whole else float
    return [kind(start + index * step) for index in range(count)]


def _check_decimal_comma(texts: tuple[str, ...], field: str) -> None:
    """Reject two values that look like one number with a decimal comma."""
    for text in texts:
        if field_type(field) is not float or not re.fullmatch(r"\d+,\d+", text):
            continue
        limits, (first, second) = field_schema(field), text.split(",")
        option, decimal = f"--{field.replace('_', '-')}", f"{first}.{second}"
        error = f"{option} {text} reads as {first} and {second}"
        outside = [
            part
            for part in (first, second)
            if not limits["minimum"] <= int(part) <= limits["maximum"]
        ]
        if outside:
            error += f", and {field} must be {limit_of(field)}, got {outside[0]}; with a decimal "
            error += f"point it is {decimal}"
        elif first == "0":
            error += f"; if {decimal} is meant, write it with a point, and if both values are, "
            error += f"{option} {first} {option} {second}"
        else:
            continue
        raise InvalidRequest(error, field=field, value=text)


def refuse_given(names: Collection[str], reason: str) -> None:
    """Reject options of the running command that were typed, though they have no effect.

    Parameters
    ----------
    names : collection of str
        Of the command's parameters.
    reason : str
        Follows the option in the error.

    Raises
    ------
    click.UsageError
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} {reason}")


def request_options(*, many: bool) -> Callable[[Command], Command]:
    """Add an option for every field of a request to a command, with one value or several."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(GenerationRequest.model_fields.items()):
            kind, option = field_type(name), f"--{name.replace('_', '-')}"
            if kind is bool:
                command = click.option(
                    f"--no-{option[2:]}",
                    name,
                    is_flag=True,
                    flag_value=False,
                    default=None,
                    help="Leave the part that --begin-with gave out of the clip.",
                )(command)
                continue
            command = click.option(
                option,
                name,
                multiple=many,
                required=field.is_required() and not many,
                metavar=METAVARS.get(name) or {str: "TEXT", int: "N", float: "X"}[kind],
                help=_help(name, many=many),
            )(command)

        @functools.wraps(command)
        def with_fields(*args: Any, **options: Any) -> Any:
            fields: dict[str, Any] = {}
            for name in REQUEST_FIELDS:
                given = options.pop(name)
                if given in (None, ()):
                    continue
                if field_type(name) in (str, bool):
                    fields[name] = list(given) if isinstance(given, tuple) else given
                else:
                    fields[name] = numbers(given, name) if many else number(given)
            return command(*args, fields=fields, **options)

        return with_fields

    return decorate


def _help(name: str, *, many: bool) -> str:
    """Describe a field, its limits and its default, from the request's schema."""
    field = GenerationRequest.model_fields[name]
    if name == "begin_with":
        return BEGIN_WITH + ("  [repeat it for several]" if many else "")
    notes = []
    if field_type(name) is not str:
        limits = field_schema(name)
        notes.append(f"{limits['minimum']:,.12g} to {limits['maximum']:,.12g}")
    if name == "seed" and many:
        return f"Seeds of each combination: 0,1,2 or a range 0:8.  [{notes[0]}; default: 0]"
    if field_type(name) is str and many:
        notes.append("repeat it for several")
    if isinstance(field.default, float | int):
        notes.append(f"default: {field.default:g}")
    return f"{field.description}  [{'; '.join(notes)}]" if notes else str(field.description)


class Seconds(click.FloatRange):
    """A finite number of seconds."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the value, or fail with the reason."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number of seconds", param, ctx)
        return seconds


def _read_max_clips(
    context: click.Context, parameter: click.Parameter, text: str
) -> int | Literal["auto"]:
    value = number(text)
    if isinstance(value, int):
        return value
    if value == "auto":
        return "auto"
    raise click.BadParameter(f"must be auto or a whole number, got {text!r}")


def page_options(command: Command) -> Command:
    """Give a command the options of a report's page."""
    for declaration in (
        click.option(
            "--self-contained/--no-self-contained",
            default=None,
            help="Put the sounds inside the page, up to 32 MB.  [default: where it has up to 20 MB "
            "with them]",
        ),
        click.option("--features", help="Names of the features to report, separated by commas."),
        click.option("--title", help="The report's heading."),
    ):
        command = declaration(command)
    return command


def engine_options(command: Command) -> Command:
    """Add the options of the engine to a command, as one `options` argument."""
    for declaration in (
        click.option(
            "--cuda-graphs/--no-cuda-graphs",
            default=True,
            show_default=True,
            help="On an NVIDIA GPU, record a step once and replay it.",
        ),
        click.option(
            "--max-clips",
            default="auto",
            show_default=True,
            callback=_read_max_clips,
            help="The most clips generated at once: auto or a number.",
        ),
        click.option(
            "--dtype",
            default="auto",
            show_default=True,
            help="auto, float32, bfloat16 or float16.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda or another of torch's.",
        ),
    ):
        command = declaration(command)

    @functools.wraps(command)
    def with_options(
        *args: Any,
        device: str,
        dtype: str,
        max_clips: int | Literal["auto"],
        cuda_graphs: bool,
        **others: Any,
    ) -> Any:
        options = EngineOptions(device, dtype, max_clips, cuda_graphs)
        return command(*args, options=options, **others)

    return with_options


def backend_options(command: Command) -> Command:
    """Add the options of the backend to a command; `open_backend()` connects."""
    command = _with_backend(command)
    for name, default, help_text in (
        ("--engine", "lab", "lab (many clips in one batch) or audiocraft (the reference)."),
        ("--backend", "local", "Where to make the clips: local, modal, or a service's https://…"),
    ):
        command = click.option(name, default=default, show_default=True, help=help_text)(command)
    return command


def _with_backend(command: Command) -> Command:
    @engine_options
    @functools.wraps(command)
    def with_backend(
        *args: Any, backend: str, engine: str, options: EngineOptions, **others: Any
    ) -> Any:
        from musicgen_lab.backends import connect

        given = {"engine": engine, **asdict(options)}
        defaults = {"engine": "lab", **asdict(DEFAULT_OPTIONS)}
        chosen = {name: value for name, value in given.items() if value != defaults[name]}
        if chosen and not backend.startswith("local"):
            name, value = next(iter(chosen.items()))
            option = "--no-cuda-graphs" if name == "cuda_graphs" else f"--{name.replace('_', '-')}"
            raise InvalidRequest(
                f"{option} is for the local backend; leave it out with --backend {backend}",
                field=name,
                value=value,
            )
        return command(*args, open_backend=lambda: connect(backend, **chosen), **others)

    return with_backend
