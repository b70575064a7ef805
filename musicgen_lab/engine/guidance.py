"""The rows of a clip: which text each one attends to, and how guidance combines them.

Classifier-free guidance takes two rows per clip, one with the prompt and one with the text that it
is guided away from: `negative_prompt`, or none. Two mixed prompts take one row each. A row that
would not change the result is left out. Without torch, so that memory can be counted without it.
"""

from __future__ import annotations

from musicgen_lab.request import GenerationRequest


def prompt_texts(request: GenerationRequest) -> list[str]:
    """Return the prompts of a clip: one, two that are mixed, or none where cfg_coef is 0."""
    if request.cfg_coef == 0:
        return []
    if not request.prompt_b or request.mix == 0:
        return [request.prompt]
    if request.mix == 1 or request.prompt_b == request.prompt:
        return [request.prompt_b]
    return [request.prompt, request.prompt_b]


def mixes_prompts(request: GenerationRequest) -> bool:
    """Return whether a clip has a row for each of two prompts."""
    return len(prompt_texts(request)) == 2


def row_texts(request: GenerationRequest) -> list[str]:
    """Return the text of each of a clip's 1 to 3 rows, "" for none.

    The prompts come first. The text that guidance leads away from is the last one; with a cfg_coef
    of 1 there is no such row.
    """
    away = [] if request.cfg_coef == 1 else [request.negative_prompt]
    return prompt_texts(request) + away
