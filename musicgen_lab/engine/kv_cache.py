"""`KeyValueCache`: a paged cache of the keys and values of clips and prompts.

As in vLLM's paged attention, with one difference: a clip allocates the blocks of its whole length
before its first step, so that it never has to be preempted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musicgen_lab.engine.capacity import Capacity
from musicgen_lab.engine.transformer import Transformer


class KeyValueCache:
    """Blocks of cached keys and values, and a free list.

    Parameters
    ----------
    transformer : Transformer
    capacity : Capacity

    Attributes
    ----------
    capacity : Capacity
    tensor : Tensor
        (L, 2, blocks + 1, H, block_len, D), from `Transformer.make_cache`.
    spare_block : int
        Where the padding of a recorded step writes to; never read.
    """

    def __init__(self, transformer: Transformer, capacity: Capacity) -> None:
        self.capacity, self.spare_block = capacity, capacity.blocks
        self.tensor = transformer.make_cache(capacity.blocks + 1, capacity.block_len)
        self._free = list(reversed(range(capacity.blocks)))

    @property
    def free_blocks(self) -> int:
        """The number of free blocks."""
        return len(self._free)

    def take(self, steps: int) -> list[int]:
        """Allocate the blocks of a row of `steps` steps; enough must be free."""
        return [self._free.pop() for _ in range(self.capacity.count_blocks(steps))]

    def give_back(self, blocks: list[int]) -> None:
        """Free blocks; their contents are left as they are."""
        self._free += reversed(blocks)

    def write(self, blocks: list[int], keys_values: Tensor) -> None:
        """Write a prompt's keys and values, (L, 2, H, T, D), into its blocks."""
        pieces = torch.split(keys_values, self.capacity.block_len, dim=3)
        for block, piece in zip(blocks, pieces, strict=True):
            self.tensor[:, :, block, :, : piece.shape[3]] = piece
