"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import click

from musicgen_lab.errors import InvalidRequest

Command = Callable[..., Any]


def number(text: str) -> int | float | str:
    """Read a number; anything else stays text, for the request to refuse by name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def numbers(texts: tuple[str, ...]) -> list[int | float | str]:
    """Read `0.7,1.0`, repeated options, and ranges such as `0:8` (0 to 7) or `0:8:2`."""
    from musicgen_lab.sweep import REQUESTS_MAX

    values: list[int | float | str] = []
    for text in ",".join(texts).split(","):
        ends = [number(part) for part in text.split(":")]
        if len(ends) in (2, 3) and all(isinstance(end, int) for end in ends):
            try:
                wanted = range(*ends)  # type: ignore[arg-type]
            except ValueError:
                raise click.BadParameter(f"{text} is not a range: its step is 0") from None
            if len(wanted) > REQUESTS_MAX:
                raise click.BadParameter(
                    f"{text} is {len(wanted):,} values; a sweep has at most {REQUESTS_MAX:,} clips"
                )
            values.extend(wanted)
        else:
            values.append(number(text.strip()))
    return values


def names(text: str | None) -> list[str] | None:
    """Read names by comma; None stays None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


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
                fields[name] = numbers(fields[name]) if many else number(fields[name])
            for name in ("prompt", "model"):
                if many and name in fields:
                    fields[name] = list(fields[name])
            return command(*args, fields=fields, **options)

        return with_fields

    return decorate


class Seconds(click.FloatRange):
    """A finite number of seconds."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it, or say why not."""
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no length of time", param, ctx)
        return seconds


def read_slots(text: str) -> int | Literal["auto"]:
    """Read `--slots`: auto or a whole number."""
    slots = number(text)
    if isinstance(slots, int):
        return slots
    if slots == "auto":
        return "auto"
    raise click.BadParameter(f"--slots must be auto or a whole number, got {text!r}")


def cuda_graphs_option(command: Command) -> Command:
    """Give a command `--no-cuda-graphs`."""
    return click.option(
        "--cuda-graphs/--no-cuda-graphs",
        default=True,
        show_default=True,
        help="On an NVIDIA GPU, record a step once and replay it.",
    )(command)


def backend_options(command: Command) -> Command:
    """Give a command the options that say who makes the clips; `open_backend()` connects."""
    command = cuda_graphs_option(command)
    for name, default, help_text in reversed(
        (
            ("--backend", "local", "Who makes the clips: local, modal, or a service's https://…"),
            ("--engine", "lab", "lab (many clips in one batch) or audiocraft (the reference)."),
            ("--device", "auto", "auto, cpu, cuda or another of torch's."),
            ("--dtype", "auto", "auto, float32, bfloat16 or float16."),
            ("--slots", "auto", "Clips made at once: auto or a number."),
        )
    ):
        command = click.option(name, default=default, show_default=True, help=help_text)(command)

    @functools.wraps(command)
    def with_backend(
        *args: Any,
        backend: str,
        engine: str,
        device: str,
        dtype: str,
        slots: str,
        cuda_graphs: bool,
        **options: Any,
    ) -> Any:
        from musicgen_lab.backends import connect

        given = {"engine": engine, "device": device, "dtype": dtype, "slots": read_slots(slots)}
        chosen: dict[str, Any] = {
            name: value for name, value in given.items() if value not in ("auto", "lab")
        }
        if not cuda_graphs:
            chosen["cuda_graphs"] = False
        if chosen and not backend.startswith("local"):
            name, value = next(iter(chosen.items()))
            option = "--no-cuda-graphs" if name == "cuda_graphs" else f"--{name}"
            raise InvalidRequest(
                f"{option} is for the local backend; leave it out with --backend {backend}",
                field=name,
                value=value,
            )
        return command(*args, open_backend=lambda: connect(backend, **chosen), **options)

    return with_backend
