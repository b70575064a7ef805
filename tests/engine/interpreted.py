"""Runs the CUDA kernel of attention in triton's interpreter: `python -m … FROM TO`.

FROM holds a list of (asked, cache, places, lengths); TO gets a list of (result, cache). It is a
process of its own, as triton must be told before it is imported.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from musicgen_lab.engine.attention_cuda import attend_on_cuda
from musicgen_lab.engine.rows import Reach

cases = torch.load(sys.argv[1], weights_only=True)
torch.save(
    [
        (attend_on_cuda(asked, cache, Reach(places, lengths)), cache)
        for asked, cache, places, lengths in cases
    ],
    sys.argv[2],
)
