"""`GenerationRequest`: one clip to make: its key, and which of its fields have no effect."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Required, TypedDict, Unpack

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import LATER_DEFAULTS, TOP_K_MAX, Fields, explain, fields_signature
from musicgen_lab.limits import WINDOW_S
from musicgen_lab.source import ROUNDING_S, SOURCE_MIN_S, Source

KEY_VERSION = 1
"""Part of every key; to be incremented when the same fields mean another clip."""


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


class GenerationRequest(Fields):
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

    def __init__(self, /, **fields: Unpack[RequestFields]) -> None:
        given: dict[str, Any] = dict(fields)
        if given.get("seed", 0) is None:
            del given["seed"]
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise explain(error) from None
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


@functools.lru_cache(maxsize=65536)
def _key_of(request: GenerationRequest) -> str:
    return digest(request.model_dump())


GenerationRequest.__signature__ = fields_signature("{}")


def digest(fields: Mapping[str, Any]) -> str:
    """Return the key of a request's fields exactly as they are given."""
    content = {"key_version": KEY_VERSION, **fields}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


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
