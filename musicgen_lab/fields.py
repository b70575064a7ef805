"""The fields of a request: their types, limits, defaults and descriptions, and these in words."""

from __future__ import annotations

import functools
import inspect
import re
import secrets
import struct
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import IN_SECONDS, did_you_mean, short
from musicgen_lab.limits import DURATION_MAX_S, DURATION_MIN_S, WINDOW_S
from musicgen_lab.source import DIGEST, SOURCE_MAX_S, SOURCE_MIN_S, Source

EXTEND_STRIDE_MIN_S, EXTEND_STRIDE_MAX_S = 1.0, 29.0
TEMPERATURE_MAX = 10.0
TOP_K_MAX = 2048  # the codebook size of every released MusicGen
CFG_COEF_MAX = 100.0
PROMPT_MAX_CHARACTERS = 1000
MODEL_MAX_CHARACTERS = 500
SEED_MAX = 2**32 - 1
REQUESTS_MAX = 1_000_000  # of a sweep

FLOAT32_MAX = 3e38
FLOAT64_DIGITS = 12  # significant; what follows is the rounding error of a computed grid
FLOAT32_DIGITS = 9  # as many tell every 32-bit float from its neighbours


def plain_number(value: Any) -> Any:
    """Return a number as a Python number, rounded to its shortest decimal; others unchanged.

    Computed grids are off by a rounding error: `np.arange(0.5, 1, 0.1)` has 0.7999999999999999, and
    a 32-bit 0.7 is 0.699999988079071. Each becomes the shortest decimal within the precision of its
    type, so that it is the same request as the number that a person types.

    Examples
    --------
    >>> plain_number(0.7999999999999999), plain_number(0.699999988079071), plain_number(0.8)
    (0.8, 0.7, 0.8)
    """
    is_half = False
    if (
        not isinstance(value, int | float | str)
        and hasattr(value, "item")  # NumPy's or torch's
        and getattr(value, "ndim", 0) == 0
    ):
        is_half = getattr(value, "itemsize", 0) == 2
        value = value.item()
    if not isinstance(value, float) or not abs(value) < FLOAT32_MAX:
        return value
    if is_half:
        return _shortest(value, "e")
    if float(f"{value:.{FLOAT32_DIGITS}g}") == value:
        return value + 0.0  # -0.0 is the same request as 0.0
    if struct.unpack("f", struct.pack("f", value)) == (value,):
        return _shortest(value, "f")
    return float(f"{value:.{FLOAT64_DIGITS}g}")


def _shortest(value: float, kind: Literal["e", "f"]) -> float:
    """Return the shortest decimal that is this 16-bit ("e") or 32-bit ("f") float."""
    decimals = (float(f"{value:.{digits}g}") for digits in range(1, FLOAT32_DIGITS + 1))
    exact = struct.pack(kind, value)
    return next(decimal for decimal in decimals if struct.pack(kind, decimal) == exact) + 0.0


def _number(value: Any) -> Any:
    """Return a plain number, and refuse booleans, which are integers too."""
    value = plain_number(value)
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _source(value: Any) -> Any:
    """Return the source of a digest, as it is in JSON."""
    return Source(value) if isinstance(value, str) and DIGEST.fullmatch(value) else value


Float = Annotated[float, BeforeValidator(_number)]
Int = Annotated[int, BeforeValidator(_number)]
Text = Annotated[str, AfterValidator(_not_blank)]
BeginSeconds = Annotated[float, Field(ge=SOURCE_MIN_S, le=DURATION_MAX_S), BeforeValidator(_number)]
ByDigest = Annotated[
    InstanceOf[Source],
    BeforeValidator(_source),
    PlainSerializer(lambda source: source.digest, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{DIGEST.pattern}$"}),
]


class Fields(BaseModel):
    """The fields of a `GenerationRequest`, whose docstring describes them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    prompt: Text = Field(
        max_length=PROMPT_MAX_CHARACTERS,
        description="Text description of the music to generate.",
        examples=["upbeat electronic dance music with heavy bass"],
    )
    duration: Float = Field(
        8.0, ge=DURATION_MIN_S, le=DURATION_MAX_S, description="Length in seconds."
    )
    temperature: Float = Field(
        1.0,
        ge=0.0,
        le=TEMPERATURE_MAX,
        description="Sampling temperature, higher = more random; 0 always takes the likeliest "
        "token, so that seed, top_k and top_p do nothing.",
    )
    top_k: Int = Field(
        250,
        ge=0,
        le=TOP_K_MAX,
        description="Sample from the k likeliest tokens only; 0 = from all. Not used while "
        "top_p > 0.",
    )
    top_p: Float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Sample from the fewest likeliest tokens whose probabilities reach this sum; "
        "0 = off. Replaces top_k.",
    )
    cfg_coef: Float = Field(
        3.0,
        ge=0.0,
        le=CFG_COEF_MAX,
        description="Classifier-free guidance coefficient: how strongly the prompt is followed; "
        "1 = no guidance, 0 = the prompt is ignored.",
    )
    seed: Int = Field(
        default_factory=lambda: secrets.randbelow(SEED_MAX + 1),
        ge=0,
        le=SEED_MAX,
        description="Seed of all of this clip's randomness; drawn and returned when not given.",
    )
    model: Text | None = Field(
        None,
        max_length=MODEL_MAX_CHARACTERS,
        description="Model name, path or hub id, with its revision after '@' once resolved; "
        "the backend's own model when not given.",
    )
    negative_prompt: str = Field(
        "",
        max_length=PROMPT_MAX_CHARACTERS,
        description="Text that guidance leads away from, instead of from no text; no effect with "
        "cfg_coef 1.",
    )
    prompt_b: str = Field(
        "",
        max_length=PROMPT_MAX_CHARACTERS,
        description="A second text description, which mix mixes with the prompt.",
    )
    mix: Float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of prompt_b in the guided logits; 0 = prompt alone, 1 = prompt_b alone.",
    )
    extend_stride: Float = Field(
        18.0,
        ge=EXTEND_STRIDE_MIN_S,
        le=EXTEND_STRIDE_MAX_S,
        description=f"Seconds by which a window of {WINDOW_S:g} s moves on; only for clips longer "
        "than that.",
    )
    begin_with: ByDigest | None = Field(
        None,
        description="Sound or clip to continue, by the SHA-256 of its content.",
    )
    begin_at: Float = Field(
        0.0,
        ge=0.0,
        le=SOURCE_MAX_S,
        description="Where in begin_with the part to begin with starts, in seconds.",
    )
    begin_s: BeginSeconds | None = Field(
        None,
        description="How much of begin_with to begin with, in seconds; all that follows begin_at "
        "when not given.",
    )
    include_start: bool = Field(
        True, description="Whether the clip holds the part that begin_with gave."
    )


REQUEST_FIELDS = tuple(Fields.model_fields)

SWEEP_ORDER = (
    "model",
    "prompt",
    "prompt_b",
    "negative_prompt",
    "begin_with",
    "begin_at",
    "begin_s",
    "include_start",
    "duration",
    "extend_stride",
    "top_k",
    "top_p",
    "temperature",
    "cfg_coef",
    "mix",
    "seed",
)
"""The fields in the order in which sweeps and results vary them; the last one varies fastest."""

LATER_DEFAULTS = {
    name: Fields.model_fields[name].default
    for name in (
        "negative_prompt",
        "prompt_b",
        "mix",
        "extend_stride",
        "begin_with",
        "begin_at",
        "begin_s",
        "include_start",
    )
}
"""The fields that came after the first version of the key, with their defaults."""


def fields_signature(annotation: str, **defaults: Any) -> inspect.Signature:
    """Return a signature that has every field of a request as a keyword, with its default.

    Parameters
    ----------
    annotation : str
        Of every field, where {} stands for `str`, `int`, `float` or `bool`.
    **defaults
        In place of those of a request.
    """
    parameters = []
    for name, field in Fields.model_fields.items():
        kind = annotation.format(field_type(name).__name__)
        default: Any = inspect.Parameter.empty
        if not field.is_required():
            default = defaults.get(name, None if field.default_factory else field.default)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=f"{kind} | None" if default is None else kind,
            )
        )
    return inspect.Signature(parameters)


@functools.cache
def _schemas() -> dict[str, dict[str, Any]]:
    schemas: dict[str, dict[str, Any]] = Fields.model_json_schema()["properties"]
    return schemas


def field_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a field: its type, limits, default and description."""
    schema = _schemas().get(name, {})
    kinds = [kind for kind in schema.get("anyOf", []) if kind["type"] != "null"]
    return {**schema, **kinds[0]} if kinds else schema


def field_type(name: str) -> type:
    """Return `str`, `int`, `float` or `bool`: what a field holds."""
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool}
    return kinds[field_schema(name)["type"]]


def explain(error: ValidationError) -> InvalidRequest:
    """Return pydantic's first error as one sentence."""
    detail = error.errors(include_url=False)[0]
    field = str(detail["loc"][0]) if detail["loc"] else None
    value, kind = detail["input"], detail["type"]
    if kind == "extra_forbidden":
        return unknown_field(str(field), value)
    if kind == "missing":
        return InvalidRequest(f"{field} is required", field=field)
    limit = limit_of(field)
    if kind == "string_too_long":
        given = f"{len(value)} characters; shorten it"
    elif kind == "string_unicode":
        given = "text with characters that are not valid Unicode"
    elif kind == "value_error" and isinstance(value, str):
        given = "an empty one"
    else:
        given = short(value)
    advice = ""
    if isinstance(value, str) and re.fullmatch(r"\d+,\d+", value) and limit.startswith("a number"):
        advice = f"; with a decimal point it is {value.replace(',', '.')}"
    return InvalidRequest(f"{field} must be {limit}, got {given}{advice}", field=field, value=value)


def unknown_field(field: str, value: Any = None) -> InvalidRequest:
    """Return the error for an unknown field, with the field that was probably meant."""
    return InvalidRequest(
        f"unknown field {field!r}{did_you_mean(field, REQUEST_FIELDS)}; "
        f"the fields are {', '.join(REQUEST_FIELDS)}",
        field=field,
        value=value,
    )


def limit_of(field: str | None, maximum: float | None = None) -> str:
    """Return a field's limits in words, from the schema; or with another maximum."""
    schema = field_schema(field or "")
    if field == "begin_with":
        return "a Source, or the SHA-256 of one as 64 hexadecimal digits"
    if schema.get("type") == "boolean":
        return "true or false"
    if schema.get("type") == "string":
        least = "up to" if schema.get("default") == "" else "1 to"
        return f"text of {least} {schema['maxLength']:,} characters"
    unit = " seconds" if field in IN_SECONDS else ""
    noun = "a whole number" if schema.get("type") == "integer" else "a number"
    highest = schema["maximum"] if maximum is None else maximum
    return f"{noun} from {schema['minimum']:,.12g} to {highest:,.12g}{unit}"
