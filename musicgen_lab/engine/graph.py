"""`StepGraph`: a step recorded once on a CUDA device, and replayed.

A step of a large model is a thousand kernels, and starting them one by one takes longer than they
run. A CUDA graph starts them all at once, but only with the memory and the shapes of its recording.
So the step is recorded for as many rows as the engine may have, and each step's tokens, positions
and context lengths are written into tensors that stay where they are. Attention reads them there,
so one recording serves clips of all lengths; and as each product has the same number of rows
whatever the batch, a row's bits cannot depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.engine.transformer import Transformer

Recording = tuple[Callable[[], None], Tensor]  # what replays it, and where its result lies then
_WARM_UPS = 3
_one_at_a_time = threading.Lock()  # a recording forbids others, of whichever engine, to begin one


class StepGraph:
    """`Transformer.step`, recorded.

    Parameters
    ----------
    transformer : Transformer
    cache, prompt_cache : Tensor
        Those of all steps; the cache has one block more than rows, for what spare rows write.
    rows : int
        The most rows that a step may have.
    """

    def __init__(
        self, transformer: Transformer, cache: Tensor, prompt_cache: Tensor, rows: int
    ) -> None:
        def table(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=transformer.device)

        self._transformer, self._cache, self._prompt_cache = transformer, cache, prompt_cache
        self._spare_block = rows
        self._rows = StepRows(
            tokens=table(rows, transformer.config.codebooks),
            spans=AttentionSpans(table(rows, 1), table(rows)),
            prompt_spans=AttentionSpans(table(rows, 1), table(rows)),
        )
        self._recorded: Recording | None = None

    def step(self, rows: StepRows) -> Tensor:
        """Take one step of B rows: (B, K, card) logits, which hold until the next step."""
        fixed = self._rows
        for kept, given, spare in (
            (fixed.tokens, rows.tokens, 0),
            (fixed.spans.block_tables, rows.spans.block_tables, self._spare_block),
            (fixed.spans.context_lens, rows.spans.context_lens, 1),
            (fixed.prompt_spans.block_tables, rows.prompt_spans.block_tables, 0),
            (fixed.prompt_spans.context_lens, rows.prompt_spans.context_lens, 0),  # gives 0
        ):
            kept[: len(given)] = given
            kept[len(given) :] = spare
        if self._recorded is None:
            self._recorded = record_on_cuda(self._transformer.device, self._step)
        replay, logits = self._recorded
        replay()
        return logits[: len(rows.tokens)]

    def _step(self) -> Tensor:
        return self._transformer.step(self._rows, self._cache, self._prompt_cache)


def record_on_cuda(device: torch.device, run: Callable[[], Tensor]) -> Recording:
    """Record what a function does on a CUDA device.

    It is run a few times before, so that kernels are compiled and workspaces taken by then. A step
    may be: done again, it writes the same keys and values.
    """
    with _one_at_a_time, torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.stream(side),  # and back, also when the recording fails
                torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"),
            ):
                result = run()
        except RuntimeError as error:
            raise RuntimeError(
                f"a step could not be recorded ({error}); turn CUDA graphs off to go without"
            ) from error
    return graph.replay, result
