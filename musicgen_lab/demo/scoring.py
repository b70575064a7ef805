"""`score`: the language model's probabilities at every step of existing music."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from musicgen_lab.engine.batch import make_batch
from musicgen_lab.engine.clip_state import ClipRow, ClipState
from musicgen_lab.engine.delay import delay
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.sampler import filter_probabilities
from musicgen_lab.request import GenerationRequest


@dataclass(frozen=True)
class Score:
    """The model's probabilities and the actual tokens.

    Attributes
    ----------
    probabilities : Tensor
        (S, K, card) that a token would be drawn from, after guidance, temperature and filters.
    tokens : Tensor
        (S, K) that came; the special token where no code was due.
    """

    probabilities: Tensor
    tokens: Tensor


@torch.inference_mode()
def score(engine: Engine, request: GenerationRequest, codes: Tensor) -> Score:
    """Feed the codes of a clip to an engine, and record the sampling probabilities of each step.

    Parameters
    ----------
    engine : Engine
        Not in use by anyone else meanwhile.
    request : GenerationRequest
        Its prompt and sampling parameters; the duration and the seed do not matter.
    codes : Tensor
        (K, frames)

    Returns
    -------
    Score
    """
    config, transformer = engine.config, engine.transformer
    sequence = delay(codes.to(transformer.device), config.delays, config.special_token)
    keys_values = engine.prompts.keys_values(request.prompt)
    prompt_tokens = keys_values.shape[3]
    cache = transformer.make_cache(3, config.max_steps)  # a block for each row, and for the prompt
    cache[:, :, 2, :, :prompt_tokens] = keys_values
    clip = ClipState(
        request_id=0,
        request=request,
        slot=0,
        windows=[],
        rows=[ClipRow(request.prompt, [0], [2], prompt_tokens), ClipRow("", [1])],
        codes=codes,
    )
    batch = make_batch([clip], sequence[None])
    expected = []
    for tokens in sequence[1:]:
        logits = batch.guide(transformer.step(batch.rows, cache))
        expected.append(filter_probabilities(logits, batch.parameters)[0])
        batch.advance(tokens[None])
    return Score(torch.stack(expected), sequence[1:])
