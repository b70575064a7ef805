"""`StepGraph`: a step recorded once on a CUDA device, and replayed.

A step of a large model is a thousand kernels, and starting them one by one takes longer than they
run. A CUDA graph starts them all at once, but only with the memory and the shapes of its recording.
So the step is recorded for as many rows as the engine may have, and each step's tokens, positions
and reaches are written into tensors that stay where they are. Attention reads the lengths from
there, so one recording serves clips of all lengths; and as each product has the same number of rows
whatever the batch, a row's bits cannot depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from musicgen_lab.engine.rows import Reach, StepRows
from musicgen_lab.engine.transformer import Transformer

Recording = tuple[Callable[[], None], Tensor]  # what replays it, and where its result lies then
_WARM_UPS = 3


class StepGraph:
    """`Transformer.step`, recorded.

    Parameters
    ----------
    transformer : Transformer
    cache, prompt_cache : Tensor
        Those of all steps.
    rows : int
        The most rows that a step may have.
    record : callable, optional
        Takes what is to be recorded, runs it, and returns a recording; `record_on_cuda` unless
        given.
    """

    def __init__(
        self,
        transformer: Transformer,
        cache: Tensor,
        prompt_cache: Tensor,
        rows: int,
        record: Callable[[Callable[[], Tensor]], Recording] | None = None,
    ) -> None:
        def table(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=transformer.device)

        self._transformer, self._cache, self._prompt_cache = transformer, cache, prompt_cache
        self._record = record or functools.partial(record_on_cuda, transformer.device)
        self._rows = StepRows(
            tokens=table(rows, transformer.config.codebooks),
            positions=table(rows),
            reach=Reach(table(rows), table(rows)),
            prompts=Reach(table(rows), table(rows)),
        )
        self._recorded: Recording | None = None

    def step(self, rows: StepRows) -> Tensor:
        """Take one step of B rows: (B, K, card) logits, which hold until the next step."""
        fixed, count = self._rows, len(rows.tokens)
        unprompted = (0, count - len(rows.prompts.places))  # attention over no keys is 0
        for kept, given in (
            (fixed.tokens, rows.tokens),
            (fixed.positions, rows.positions),
            (fixed.reach.places, rows.reach.places),
            (fixed.reach.lengths, rows.reach.lengths),
            (fixed.prompts.places, F.pad(rows.prompts.places, unprompted)),
            (fixed.prompts.lengths, F.pad(rows.prompts.lengths, unprompted)),
        ):
            kept[:count] = given
            kept[count:] = given[-1:]  # spare rows do what the last row does, in the same place
        if self._recorded is None:
            self._recorded = self._record(self._step)
        replay, logits = self._recorded
        replay()
        return logits[:count]

    def _step(self) -> Tensor:
        return self._transformer.step(self._rows, self._cache, self._prompt_cache)


def record_on_cuda(device: torch.device, run: Callable[[], Tensor]) -> Recording:
    """Record what a function does on a CUDA device.

    It is run a few times before, so that kernels are compiled and workspaces taken by then. A step
    may be: done again, it writes the same keys and values.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = run()
        except RuntimeError as error:
            raise RuntimeError(
                f"a step could not be recorded ({error}); turn CUDA graphs off to go without"
            ) from error
    return graph.replay, result
