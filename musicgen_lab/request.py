"""`GenerationRequest`: one clip to make, and the definition of its fields and their limits."""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import json
import re
import secrets
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Required, TypedDict, Unpack

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
)

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import IN_SECONDS
from musicgen_lab.limits import DURATION_MAX_S, DURATION_MIN_S, WINDOW_S
from musicgen_lab.source import DIGEST, ROUNDING_S, SOURCE_MAX_S, SOURCE_MIN_S, Source

EXTEND_STRIDE_MIN_S, EXTEND_STRIDE_MAX_S = 1.0, 29.0
TEMPERATURE_MAX = 10.0
TOP_K_MAX = 2048  # the codebook size of every released MusicGen
CFG_COEF_MAX = 100.0
PROMPT_MAX_CHARACTERS = 1000
MODEL_MAX_CHARACTERS = 500
SEED_MAX = 2**32 - 1
REQUESTS_MAX = 1_000_000  # of a sweep

KEY_VERSION = 1
"""Part of every key; to be incremented when the same fields mean another clip."""


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


class RequestFields(TypedDict, total=False):
    """The fields of a `GenerationRequest`, for type checkers."""

    prompt: Required[str]
    duration: float
    temperature: float
    top_k: int
    top_p: float
    cfg_coef: float
    seed: int | None
    model: str | None
    negative_prompt: str
    prompt_b: str
    mix: float
    extend_stride: float
    begin_with: Source | str | None
    begin_at: float
    begin_s: float | None
    include_start: bool


class GenerationRequest(BaseModel):
    """One clip to make: a prompt and the parameters that shape it.

    The names are those of the web API and of audiocraft. A request is checked when it is made and
    never changes afterwards. Its seed is always a number: one is drawn when none is given.

    Parameters
    ----------
    prompt : str
        Text description of the music, 1 to 1,000 characters.
    duration : float
        Length in seconds, 1 to 300. What `begin_with` gives is part of it. Models make 30 s at a
        time: a longer clip is made in windows, see `extend_stride`.
    temperature : float
        Sampling temperature, 0 to 10; 0 always takes the likeliest token.
    top_k : int
        Sample from the k likeliest tokens only, 0 to 2,048; 0 is all. Not used while top_p > 0.
    top_p : float
        Sample from the fewest likeliest tokens whose probabilities reach this sum, 0 to 1; 0 is
        off.
    cfg_coef : float
        Classifier-free guidance coefficient, 0 to 100; 1 is no guidance, 0 ignores the prompt.
    seed : int, optional
        Seed of all randomness of the clip, 0 to 4,294,967,295; drawn when not given.
    model : str, optional
        Model name, path or hub id; the backend's own model when not given.
    negative_prompt : str
        Text that guidance leads away from, instead of from no text.
    prompt_b : str
        A second text, which `mix` mixes with the prompt.
    mix : float
        Share of `prompt_b` in the guided logits, 0 to 1.
    extend_stride : float
        Seconds by which a window of 30 s moves on in a longer clip, 1 to 29.
    begin_with : Source, optional
        A sound, or the codes of a clip, that the clip begins with; see `musicgen_lab.open_source`.
    begin_at : float
        Where in the source the part to begin with starts, in seconds.
    begin_s : float, optional
        How much of the source to begin with, in seconds; all that follows when not given.
    include_start : bool
        Whether the clip holds the part that was given.

    Raises
    ------
    InvalidRequest
        When a field is missing, unknown or outside its limits. The message gives the value, the
        limit and the way out; `field` and `value` carry them for programs.

    Examples
    --------
    >>> request = GenerationRequest(prompt="calm acoustic guitar melody", temperature=0.8, seed=1)
    >>> request.cfg_coef
    3.0
    """

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

    def __init__(self, /, **fields: Unpack[RequestFields]) -> None:
        if fields.get("seed", 0) is None:
            del fields["seed"]
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _explain(error) from None
        self._check_begin()

    def _check_begin(self) -> None:
        """Raise if the part to begin with is not in the source, or is as long as the clip."""
        if self.begin_with is None:
            return
        self.begin_with.check_part(self.begin_at, self.begin_s)
        given_s = self.given_s
        is_sound = self.begin_with.content is not None and not self.begin_with.is_codes
        if is_sound and given_s is not None and given_s > WINDOW_S + ROUNDING_S:
            raise InvalidRequest(
                f"begin_s must be at most {WINDOW_S:g} seconds of a sound, got {given_s:.7g}; "
                f"give a begin_s of {WINDOW_S:g} or less, and begin_at for a later part",
                field="begin_s",
                value=given_s,
            )
        if given_s is not None and self.duration < given_s + SOURCE_MIN_S:
            raise InvalidRequest(
                f"duration must be longer than the {given_s:.4g} s that begin_with gives, which it "
                f"includes, got {self.duration:g}; give a longer one, or less to begin with, such "
                "as begin_s 4",
                field="duration",
                value=self.duration,
            )

    @property
    def given_s(self) -> float | None:
        """Seconds that the clip begins with; None where the source's length is not known."""
        if self.begin_with is None:
            return 0.0
        if self.begin_s is not None:
            return self.begin_s
        whole_s = self.begin_with.duration_s
        return None if whole_s is None else whole_s - self.begin_at

    @property
    def new_s(self) -> float:
        """Seconds of sound that the model makes: all but what the clip begins with."""
        return self.duration - (self.given_s or 0.0)

    @property
    def sound_s(self) -> float | None:
        """Seconds of sound of the clip; None where the source's length is not known."""
        if self.include_start or self.begin_with is None:
            return self.duration
        return None if self.given_s is None else self.duration - self.given_s

    @model_serializer(mode="wrap")
    def _leave_out_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that older clips keep keys and records."""
        fields: dict[str, Any] = serialize(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in LATER_DEFAULTS or value != LATER_DEFAULTS[name]
        }

    def key(self) -> str:
        """Return the key of this request's clip: SHA-256 of the request in canonical JSON.

        It is the same in every process, Python version and field order. It covers every field,
        including the model with its revision, and a format version. Fields that came later are
        left out at their defaults, so that older clips keep their keys.

        Returns
        -------
        str
            64 hexadecimal digits.

        Examples
        --------
        >>> from musicgen_lab import GenerationRequest
        >>> GenerationRequest(prompt="jazzy piano solo", seed=0, model="demo@1").key()[:12]
        '95a8a48c8b43'
        """
        if self.begin_with is None:
            return _key_of(self)
        digest_only = {"begin_with": Source(self.begin_with.digest)}  # what is cached is kept
        return _key_of(self.model_copy(update=digest_only))

    def with_model(self, model: str) -> GenerationRequest:
        """Return the same request with another model, such as one with its revision.

        Parameters
        ----------
        model : str

        Examples
        --------
        >>> from musicgen_lab import GenerationRequest
        >>> GenerationRequest(prompt="jazzy piano solo").with_model("demo@1").model
        'demo@1'
        """
        return GenerationRequest(**{**dict(self), "model": model})

    def inert_fields(self, codebook_size: int = TOP_K_MAX) -> dict[str, str]:
        """Return the fields that have no effect on this request, each with the reason.

        Parameters
        ----------
        codebook_size : int
            Tokens in a codebook of the model; no model has more than the default.

        Returns
        -------
        dict of str to str
            Field name to reason; empty if every field has an effect. These are audiocraft's rules:
            temperature 0 is greedy, and top_p replaces top_k. A field that came later is named only
            where it is not at its default.

        Examples
        --------
        >>> from musicgen_lab import GenerationRequest
        >>> GenerationRequest(prompt="jazzy piano solo", top_p=0.9).inert_fields()
        {'top_k': 'top_p 0.9 replaces it'}
        """
        inert = self._inert_prompts() | self._inert_lengths()
        if self.temperature == 0:
            greedy = "temperature 0 always takes the likeliest token"
            return inert | {"top_k": greedy, "top_p": greedy, "seed": greedy}
        if self.top_p > 0:
            inert["top_k"] = f"top_p {self.top_p:g} replaces it"
            # The likeliest of so many tokens has at least this probability.
            greedy = f"top_p {self.top_p:g} always takes the likeliest of {codebook_size:,} tokens"
            is_greedy = self.top_p < 1 / codebook_size
        else:
            if self.top_k >= codebook_size:
                inert["top_k"] = (
                    f"top_k {self.top_k:,} allows all of the model's {codebook_size:,} tokens, "
                    "as 0 does"
                )
            greedy = "top_k 1 always takes the likeliest token"
            is_greedy = self.top_k == 1
        return inert | ({"temperature": greedy, "seed": greedy} if is_greedy else {})

    def _inert_prompts(self) -> dict[str, str]:
        """Return the texts, and the mix of them, that have no effect."""
        inert: dict[str, str] = {}
        if self.cfg_coef == 0:
            inert["prompt"] = "cfg_coef 0 ignores the prompt"
        elif self.mix == 1 and self.prompt_b:
            inert["prompt"] = "mix 1 follows prompt_b alone"
        if self.prompt_b:
            if self.cfg_coef == 0:
                inert["prompt_b"] = "cfg_coef 0 ignores the prompts"
            elif self.prompt_b == self.prompt:
                inert["prompt_b"] = "it is the prompt"
            elif self.mix == 0:
                inert["prompt_b"] = "mix 0 follows the prompt alone"
        if self.mix > 0 and (not self.prompt_b or self.cfg_coef == 0 or "prompt_b" in inert):
            inert["mix"] = inert.get("prompt_b", "there is no prompt_b").replace(
                "it is", "prompt_b is"
            )
        if self.negative_prompt and self.cfg_coef == 1:
            inert["negative_prompt"] = "cfg_coef 1 is no guidance"
        return inert

    def _inert_lengths(self) -> dict[str, str]:
        """Return the fields of long and of continued clips that have no effect."""
        inert: dict[str, str] = {}
        if self.duration <= WINDOW_S and self.extend_stride != LATER_DEFAULTS["extend_stride"]:
            inert["extend_stride"] = f"a clip of up to {WINDOW_S:g} s is made in one window"
        if self.begin_with is None:
            for name in ("begin_at", "begin_s", "include_start"):
                if getattr(self, name) != LATER_DEFAULTS[name]:
                    inert[name] = "there is no begin_with"
        return inert


LATER_DEFAULTS = {
    name: GenerationRequest.model_fields[name].default
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
    for name, field in GenerationRequest.model_fields.items():
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
    schemas: dict[str, dict[str, Any]] = GenerationRequest.model_json_schema()["properties"]
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


@functools.lru_cache(maxsize=65536)
def _key_of(request: GenerationRequest) -> str:
    return digest(request.model_dump())


def digest(fields: Mapping[str, Any]) -> str:
    """Return the key of a request's fields exactly as they are given."""
    content = {"key_version": KEY_VERSION, **fields}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


GenerationRequest.__signature__ = fields_signature("{}")
REQUEST_FIELDS = tuple(GenerationRequest.model_fields)

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


def _explain(error: ValidationError) -> InvalidRequest:
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
    meant = difflib.get_close_matches(field, REQUEST_FIELDS, n=1)
    hint = f" (did you mean {meant[0]}?)" if meant else ""
    return InvalidRequest(
        f"unknown field {field!r}{hint}; the fields are {', '.join(REQUEST_FIELDS)}",
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


def short(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Return a value as text of at most 60 characters, as Python or another `write` has it."""
    text = write(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def ignored_by_choice(
    request: GenerationRequest, chosen: Iterable[str], codebook_size: int = TOP_K_MAX
) -> list[str]:
    """Return which explicitly set fields have no effect on a request.

    Parameters
    ----------
    request : GenerationRequest
    chosen : iterable of str
        The names of the fields that the user set.
    codebook_size : int
        Tokens in a codebook of the model.

    Returns
    -------
    list of str
        One sentence per ignored field, such as "top_k does nothing: top_p 0.9 replaces it".
    """
    inert = request.inert_fields(codebook_size)
    return [f"{field} does nothing: {inert[field]}" for field in chosen if field in inert]
