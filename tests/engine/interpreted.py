"""Runs the CUDA kernel of attention in triton's interpreter: `python -m … FROM TO`.

FROM holds a list of (qkv, cache, block_tables, context_lens); TO gets a list of (result, cache). It
is a process of its own, as triton must be told before it is imported.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from musicgen_lab.engine.attention_cuda import attend_on_cuda
from musicgen_lab.engine.rows import AttentionSpans

cases = torch.load(sys.argv[1], weights_only=True)
torch.save(
    [
        (attend_on_cuda(qkv, cache, AttentionSpans(block_tables, context_lens)), cache)
        for qkv, cache, block_tables, context_lens in cases
    ],
    sys.argv[2],
)
