"""The CUDA kernels in triton's interpreter, for a process of its own.

triton must be told before it is imported, so the functions here import what uses it when called.
"""

import os

import torch

from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.models.config import ModelConfig

CPU = torch.device("cpu")


def begin():
    """Tell triton to interpret kernels."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


def attend(qkv, cache, block_tables, context_lens, sharers=1):
    """Attention, and the cache after it."""
    from musicgen_lab.engine.kernels.attention import Attention

    cache = cache.clone()
    rows, heads, size = len(context_lens), cache.shape[2], cache.shape[4]
    attention = Attention(rows, heads, size, block_tables.shape[1] * cache.shape[3], CPU)
    return attention(qkv, cache, AttentionSpans(block_tables, context_lens), sharers), cache


def multiply(x, weight, bias=None, tiles=None, gelu=False):
    """A product of rows."""
    from musicgen_lab.engine.kernels.linear import SplitLinear, cut

    if tiles:
        block_n, block_k, splits = tiles
        tiles = cut(weight.shape[1], block_n=block_n, block_k=block_k, splits=splits)
    return SplitLinear(weight, bias, gelu=gelu, tiles=tiles)(x)


def add_and_norm(partials, x, weight, bias):
    """The residual stream after adding to it, and it normalised."""
    from musicgen_lab.engine.kernels.norm import add_and_normalise

    x = x.clone()
    return x, add_and_normalise(partials, x, (weight, bias))


def step(config, tensors, tokens, spans, prompt_spans, cache):
    """A step of a model for five rows, and the cache after it."""
    from musicgen_lab.engine.kernels.transformer import TritonStep

    cache, model_config = cache.clone(), ModelConfig.model_validate_json(config)
    take_step = TritonStep(model_config, tensors, device=CPU, dtype=torch.float32, rows=5)
    rows = StepRows(tokens, AttentionSpans(*spans), AttentionSpans(*prompt_spans))
    return take_step(rows, cache), cache


def prefill(config, tensors, tokens, spans, prompt_spans, cache):
    """The cache after steps of a model that are taken at once."""
    from musicgen_lab.engine.kernels.transformer import TritonStep

    cache, model_config = cache.clone(), ModelConfig.model_validate_json(config)
    steps = TritonStep(model_config, tensors, device=CPU, dtype=torch.float32, rows=5)
    steps.prefill(StepRows(tokens, AttentionSpans(*spans), AttentionSpans(*prompt_spans)), cache)
    return cache


def sample(cases):
    """For each `SamplingCase` the tokens drawn, the table of tokens, and which are finite."""
    from musicgen_lab.engine.kernels.sampler import draw_tokens_on_cuda

    results = []
    for logits, batch, tables in (case.tensors() for case in cases):
        results.append((draw_tokens_on_cuda(logits, batch, tables), tables.tokens, tables.finite))
    return results
