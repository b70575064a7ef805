"""The training loss of the demo's language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.demo.architecture import CARD


def codebook_losses(
    lm: Any,
    codes: Tensor,
    captions: Sequence[str | None],
    offsets: Tensor,
    *,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of every codebook.

    Parameters
    ----------
    lm : audiocraft.models.LMModel
    codes : Tensor
        (B, K, T)
    captions : sequence of str or None
        None for no caption.
    offsets : Tensor
        (B,) position of the first step.
    noise : Tensor, optional
        (B,) shares of each clip's input tokens that are replaced at random.

    Returns
    -------
    Tensor
        (K,) in nats per token.
    """
    from audiocraft.modules.conditioners import ConditioningAttributes

    pattern = lm.pattern_provider.get_pattern(codes.shape[-1])
    delayed, _, _ = pattern.build_pattern_sequence(
        codes, lm.special_token_id, keep_only_valid_steps=False
    )  # (B, K, S + 1)
    heard, target = delayed[..., :-1], delayed[..., 1:]
    if noise is not None:
        heard = add_noise(heard, noise)
    described = [ConditioningAttributes(text={"description": caption}) for caption in captions]
    conditions = lm.condition_provider(lm.condition_provider.tokenize(described))
    # audiocraft keeps the position of a sequence's start where it keeps its streaming state.
    lm.transformer._streaming_state["offsets"] = offsets.to(heard.device)
    logits = lm(heard, [], conditions)  # (B, K, S, card)
    lm.transformer._streaming_state.clear()
    target = torch.where(target == lm.special_token_id, -100, target)
    nats = F.cross_entropy(logits.permute(0, 3, 1, 2), target, reduction="none")  # (B, K, S)
    return nats.sum(dim=(0, 2)) / codes[:, 0].numel()


def add_noise(tokens: Tensor, rates: Tensor) -> Tensor:
    """Replace tokens at random, each clip at its own rate; the special token stays.

    Parameters
    ----------
    tokens : Tensor
        (B, K, S)
    rates : Tensor
        (B,) from 0 to 1.

    Returns
    -------
    Tensor
        (B, K, S)
    """
    noisy = torch.rand(tokens.shape, device=tokens.device) < rates[:, None, None]
    return torch.where(noisy & (tokens != CARD), torch.randint_like(tokens, CARD), tokens)
