"""What the model expects of a clip that it has made is what it drew the clip from."""

import torch

from musicgen_lab.demo.scoring import score
from tests.support.cases import greedy, sampled, tokens_of


def test_a_greedy_clip_is_the_likeliest_at_every_step(mono):
    request = greedy(duration=1.0)
    told = score(mono.engine, request, tokens_of(mono.engine, request))

    due = told.tokens != mono.engine.config.special_token
    assert due.sum() == 50 * mono.engine.config.codebooks
    assert torch.equal(told.probabilities.argmax(dim=-1)[due], told.tokens[due])


def test_tokens_that_the_filter_leaves_out_are_never_drawn(mono):
    request = sampled(top_k=5, temperature=1.5)
    told = score(mono.engine, request, tokens_of(mono.engine, request))

    due = told.tokens != mono.engine.config.special_token
    drawn = told.probabilities[due].gather(1, told.tokens[due][:, None])
    assert (drawn > 0).all()
    assert ((told.probabilities > 0).sum(dim=-1) <= 5).all()
