"""Runs the sampling kernel in triton's interpreter: `python -m … FROM TO`.

FROM holds a list of `SamplingCase`; TO gets a list of (drawn, tokens, finite). It is a process of
its own, as triton must be told before it is imported.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from musicgen_lab.engine.kernels.sampler import draw_tokens_on_cuda

results = []
for case in torch.load(sys.argv[1], weights_only=False):
    logits, batch, tables = case.tensors()
    drawn = draw_tokens_on_cuda(logits, batch, tables)
    results.append((drawn, tables.tokens, tables.finite))
torch.save(results, sys.argv[2])
