"""A recorded step: replayed, it must do for any batch what the step itself does.

Only a GPU can record (`test_cuda.py`); here the operations of a step are noted down and done again
in the same memory, which is all that a CUDA graph does.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from musicgen_lab.engine import graph, transformer
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.slots import PROMPT_TOKENS, Slots
from musicgen_lab.request import GenerationRequest

LONG = "a long piano piece, " * 20
REQUESTS = [
    GenerationRequest(prompt=prompt, duration=duration, cfg_coef=cfg_coef, seed=seed)
    for seed, (prompt, duration, cfg_coef) in enumerate(
        [("piano", 1, 1), ("flute", 1.2, 3), ("flute", 1.4, 0), (LONG, 1, 2), ("drums", 1, 1)]
    )
]


class Notebook(TorchDispatchMode):
    """Every operation, with where its arguments and results lie."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        self.done.append((operation, args, kwargs, result))
        return result

    def replay(self):
        for operation, args, kwargs, result in self.done:
            again = operation(*args, **kwargs)
            if isinstance(result, torch.Tensor) and result.data_ptr() != again.data_ptr():
                result.copy_(again)


def attend_to_all(qkv, cache, spans):
    """Attention whose shapes do not depend on the lengths, as that of CUDA devices."""
    block_len, tables, lens = cache.shape[3], spans.block_tables, spans.context_lens
    if qkv.shape[1] == 3:
        last = lens - 1
        blocks = tables.gather(1, (last // block_len)[:, None])[:, 0]
        cache[:, blocks, :, last % block_len] = qkv[:, 1:]
    within = (torch.arange(tables.shape[1] * block_len) < lens[:, None])[:, None, :, None]
    keys, values = (
        torch.where(within, kind[tables].transpose(1, 2).flatten(2, 3), 0.0) for kind in cache
    )
    scores = torch.einsum("bhd,bhtd->bht", qkv[:, 0], keys) / qkv.shape[-1] ** 0.5
    weights = scores.masked_fill(~within[..., 0], float("-inf")).softmax(-1).nan_to_num()
    return torch.einsum("bht,bhtd->bhd", weights, values)


@pytest.fixture
def recordings(monkeypatch):
    """The recordings that engines make from here on."""
    made = []

    def record(device, run):
        notebook = Notebook()
        with notebook:
            result = run()
        made.append(notebook)
        return notebook.replay, result

    monkeypatch.setattr(transformer, "attend", attend_to_all)
    monkeypatch.setattr(graph, "record_on_cuda", record)
    return made


@pytest.fixture
def open_engine(mono):
    def opened(*, record):
        engine = Engine.open(mono.folder, device="cpu", dtype="float32", slots=3)
        engine._slots = Slots(engine.transformer, 3, record=record)
        return engine

    return opened


def test_clips_that_come_and_go_are_the_same_with_a_recorded_step(open_engine, recordings):
    expected = {c.request.seed: c.samples for c in open_engine(record=False).generate(REQUESTS)}
    assert recordings == []

    made = {c.request.seed: c.samples for c in open_engine(record=True).generate(REQUESTS)}

    assert made.keys() == expected.keys()
    for seed, samples in made.items():
        assert np.allclose(samples, expected[seed], atol=1e-4)


def test_a_step_is_recorded_once_and_again_when_prompts_need_more_room(open_engine, recordings):
    engine = open_engine(record=True)

    list(engine.generate(REQUESTS[:3]))
    assert len(recordings) == 1
    list(engine.generate(REQUESTS[3:]))

    assert len(recordings) == 2
    assert engine._slots.prompt_cache.shape[4] % PROMPT_TOKENS == 0


def test_one_clip_without_guidance_is_not_harmed_by_spare_rows(open_engine, recordings):
    """The spare rows of a recording write into the cache too."""
    (expected,) = open_engine(record=False).generate(REQUESTS[:1])
    (made,) = open_engine(record=True).generate(REQUESTS[:1])

    assert np.allclose(made.samples, expected.samples, atol=1e-4)


def test_a_step_never_waits_for_the_device(open_engine, recordings):
    """Reading a number of a tensor waits until all work before it is done, every step anew."""
    engine = open_engine(record=True)
    for fields in ({"top_k": 50}, {"top_p": 0.9}, {"temperature": 0}):
        engine.add(GenerationRequest(prompt="piano", duration=1, seed=0, **fields))
    engine.step()

    with Notebook() as seen:
        engine.step()

    names = {operation.overloadpacket.__name__ for operation, *_ in seen.done}
    assert "cumsum" in names  # they are seen at all
    assert names.isdisjoint({"_local_scalar_dense", "nonzero", "masked_select", "unique"})


def test_nothing_is_recorded_on_the_cpu(mono):
    engine = Engine.open(mono.folder, device="cpu", slots=1, cuda_graphs=True)

    assert engine._slots.graph is None
    assert engine.provenance.details["cuda_graphs"] is False
