"""What a text encoder reads of prompts: the words it does not know, and those that are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import short

WORDS_SHOWN = 5


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as a text encoder reads it.

    Attributes
    ----------
    digest : str
        Of its tokens: prompts with equal ones are the same to the model.
    unread : tuple of str
        The words that the encoder does not know, each once.
    """

    digest: str
    unread: tuple[str, ...]


def check_prompts(prompts: Mapping[str, PromptTokens]) -> list[str]:
    """Check that prompts are different to a text encoder.

    Parameters
    ----------
    prompts : Mapping of str to PromptTokens

    Returns
    -------
    list of str
        One sentence per prompt of which something is not understood.

    Raises
    ------
    InvalidRequest
        When two of them become the same tokens.
    """
    notes: list[str] = []
    by_digest: dict[str, str] = {}
    for prompt, tokens in prompts.items():
        if tokens.unread:
            words = ", ".join(tokens.unread[:WORDS_SHOWN])
            notes.append(
                f"the model's text encoder does not know "
                f"{words}{', …' if len(tokens.unread) > WORDS_SHOWN else ''} in the prompt "
                f"{short(prompt)}; describe it in words that the model knows"
            )
        same = by_digest.setdefault(tokens.digest, prompt)
        if same != prompt:
            raise InvalidRequest(
                f"the prompts {short(same)} and {short(prompt)} become the same tokens, and so the "
                "same clip; leave one out, or describe them in words that the model knows",
                field="prompt",
                value=prompt,
            )
    return notes
