"""What the models of requests do not understand of their prompts, before a clip is made."""

from __future__ import annotations

from collections.abc import Sequence

from musicgen_lab.backends import Backend, ReadsPrompts
from musicgen_lab.models.prompt_tokens import check_prompts
from musicgen_lab.request import GenerationRequest

PROMPTS = ("prompt", "prompt_b", "negative_prompt")  # the fields that text encoders read


def prompt_notes(requests: Sequence[GenerationRequest], backend: Backend) -> list[str]:
    """Return one sentence per prompt of which a model does not understand something.

    Parameters
    ----------
    requests : sequence of GenerationRequest
        Resolved.
    backend : Backend
        One that does not know what its models read leads to no sentence.

    Raises
    ------
    InvalidRequest
        When two different prompts become the same tokens.
    BackendUnavailable
        When a service cannot say what its model reads.
    """
    if not isinstance(backend, ReadsPrompts):
        return []
    notes: dict[str, None] = {}
    for model in sorted({str(request.model) for request in requests}):
        mine = [request for request in requests if request.model == model]
        fields = [dict.fromkeys(getattr(request, name) for request in mine) for name in PROMPTS]
        texts = [
            text
            for text in dict.fromkeys(text for field in fields for text in field)
            if text.strip()
        ]
        read = backend.read_prompts(model, texts)
        if read is None:
            continue
        tokens = dict(zip(texts, read, strict=True))
        for field in fields:
            notes |= dict.fromkeys(check_prompts({t: tokens[t] for t in field if t in tokens}))
    return list(notes)
