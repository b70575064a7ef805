"""The engine computes what audiocraft computes, each clip against audiocraft making it alone."""

import pytest
import torch

from musicgen_lab.engine.batch import make_batch
from musicgen_lab.engine.clip_state import ClipRow, ClipState
from tests.support.cases import PROMPTS, greedy, tokens_of
from tests.support.reference import needs_audiocraft

pytestmark = needs_audiocraft

FRAMES = 320
DURATION_S = FRAMES / 50


@pytest.mark.parametrize(("prompt", "cfg_coef"), zip(PROMPTS, [3.0, 1.0, 7.5], strict=True))
def test_greedy_tokens_are_audiocrafts(case, prompt, cfg_coef):
    request = greedy(prompt, duration=DURATION_S, cfg_coef=cfg_coef)

    ours = tokens_of(case.engine, request)

    theirs = case.reference.generate_tokens(request)[0]
    assert ours.shape == theirs.shape == (case.engine.config.codebooks, FRAMES)
    assert torch.equal(ours, theirs)


def test_greedy_tokens_are_audiocrafts_where_the_prompt_is_ignored(mono):
    request = greedy(duration=1.0, cfg_coef=0.0)

    assert torch.equal(tokens_of(mono.engine, request), mono.reference.generate_tokens(request)[0])


def test_logits_are_audiocrafts_all_along(case):
    from audiocraft.modules.conditioners import (
        ClassifierFreeGuidanceDropout,
        ConditioningAttributes,
    )

    config, transformer = case.engine.config, case.engine.transformer
    generator = torch.Generator().manual_seed(0)
    steps = 300 + config.delays[-1]
    sequence = torch.randint(0, config.card, (steps, config.codebooks), generator=generator)
    sequence[0] = config.special_token
    lm = case.reference._lm
    conditions = [ConditioningAttributes(text={"description": PROMPTS[1]})]
    conditions += ClassifierFreeGuidanceDropout(p=1.0)(conditions)
    request = greedy(PROMPTS[1], cfg_coef=3.0)
    keys_values = case.engine.prompts.keys_values(PROMPTS[1])
    prompt_tokens = keys_values.shape[3]
    cache = transformer.make_cache(3, config.max_steps)  # a block for each row, and for the prompt
    cache[:, :, 2, :, :prompt_tokens] = keys_values
    rows = [ClipRow(PROMPTS[1], [0], [2], prompt_tokens), ClipRow("", [1])]
    clip = ClipState(1, request, 0, windows=[], rows=rows, codes=sequence)
    batch = make_batch([clip], sequence[None])

    with torch.inference_mode():
        tensors = lm.condition_provider(lm.condition_provider.tokenize(conditions))
        both = sequence.T[None].expand(2, -1, -1)  # (2, K, S)
        with_prompt, without = lm(both, [], tensors)  # (K, S, card)
        theirs = without + (with_prompt - without) * 3.0
        ours = []
        for tokens in [*sequence[1:], sequence[0]]:
            ours.append(batch.guide(transformer.step(batch.rows, cache))[0])
            batch.advance(tokens[None])

    assert theirs.std() > 0.5  # logits that say something
    assert (torch.stack(ours, dim=1) - theirs).abs().max() < 1e-3


def test_audio_of_the_same_tokens_is_audiocrafts(case):
    config = case.engine.config
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, config.card, (config.codebooks, 130), generator=generator)

    ours = case.engine._codec.decode([codes])[0]

    with torch.inference_mode():
        theirs = case.reference._codec.decode(codes[None])[0]
    assert ours.shape == theirs.shape == (config.channels, 130 * 640)
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() < 1e-4


def test_a_whole_clip_is_audiocrafts(case):
    request = greedy(duration=1.3)

    (ours,) = case.engine.generate([request])

    (theirs,) = case.reference.generate([request])
    assert ours.sample_rate == theirs.sample_rate
    assert abs(ours.samples - theirs.samples).max() < 1e-4
