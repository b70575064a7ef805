"""A recorded step: replayed, it must do for any batch what the step itself does.

Only a GPU can record (`test_cuda.py`); here the operations of a step are noted down and done again
in the same memory, which is all that a CUDA graph does.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from musicgen_lab.engine import decode_state, sampler, token_tables, transformer
from musicgen_lab.engine.decode_state import DecodeState
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source

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
            for kept, given in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != given.data_ptr():
                    kept.copy_(given)


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


def sample_all(logits, parameters, uniforms):
    """Sampling with the same operations for all parameters, like that on CUDA devices."""
    temperature, card = parameters.temperature[:, None, None], logits.shape[-1]
    scale = torch.where(temperature == 0, 1.0, temperature)
    ranked, order = torch.sort((logits / scale).softmax(-1).double(), descending=True, stable=True)
    by_top_p = (parameters.top_p > 0)[:, None, None]
    reached = ranked.cumsum(-1) - ranked > parameters.top_p[:, None, None]
    top_k = torch.where(parameters.top_k > 0, parameters.top_k, card).clamp(max=card)
    least = ranked.gather(-1, (top_k - 1)[:, None, None].expand(*logits.shape[:2], 1))
    dropped = torch.where(by_top_p, reached, ranked < least)
    kept = torch.zeros_like(ranked).scatter(-1, order, ranked.masked_fill(dropped, 0))
    cumulative = kept.cumsum(-1)
    limit = (uniforms * cumulative[..., -1])[..., None]
    drawn = torch.searchsorted(cumulative, limit, right=True)[..., 0].clamp(max=card - 1)
    return torch.where(temperature[..., 0] == 0, logits.argmax(-1), drawn)


@pytest.fixture
def recordings(monkeypatch):
    """The recordings that engines make from here on."""
    made = []

    def record(device, run):
        notebook = Notebook()
        with notebook:
            run()
        made.append(notebook)
        return notebook.replay

    monkeypatch.setattr(transformer, "attend", attend_to_all)
    monkeypatch.setattr(token_tables, "sample", sample_all)
    monkeypatch.setattr(decode_state, "record_on_cuda", record)
    return made


@pytest.fixture
def open_engine(mono):
    def opened(*, record):
        engine = Engine.open(mono.folder, EngineOptions("cpu", "float32", 3))
        engine._state = DecodeState(engine.transformer, engine._cache, record=record)
        return engine

    return opened


def test_clips_that_start_and_finish_at_different_steps_are_the_same_with_a_recorded_step(
    open_engine, recordings
):
    expected = {c.request.seed: c.samples for c in open_engine(record=False).generate(REQUESTS)}
    assert recordings == []

    made = {c.request.seed: c.samples for c in open_engine(record=True).generate(REQUESTS)}

    assert made.keys() == expected.keys()
    for seed, samples in made.items():
        assert np.allclose(samples, expected[seed], atol=1e-4)


def test_clips_of_three_rows_and_of_given_codes_are_the_same_with_a_recorded_step(
    open_engine, recordings
):
    engine = open_engine(record=False)
    (first,) = engine.generate([GenerationRequest(prompt="piano", duration=1, seed=9)])
    source = Source.of_bytes(first.codes_bytes())
    requests = [
        *REQUESTS[1:3],
        GenerationRequest(prompt="piano", duration=1, seed=5, prompt_b="drums", mix=0.3),
        GenerationRequest(prompt="piano", duration=1.3, seed=6, begin_with=source, begin_s=0.6),
        GenerationRequest(prompt="drums", duration=1.2, seed=7, negative_prompt=LONG),
    ]
    expected = {c.request.seed: c.samples for c in engine.generate(requests)}

    made = {c.request.seed: c.samples for c in open_engine(record=True).generate(requests)}

    assert made.keys() == expected.keys()
    for seed, samples in made.items():
        assert np.allclose(samples, expected[seed], atol=1e-4)


def test_clips_that_mix_have_recordings_of_their_own(open_engine, recordings):
    engine = open_engine(record=True)
    mixed = GenerationRequest(prompt="piano", duration=1, seed=5, prompt_b="drums", mix=0.3)

    list(engine.generate([REQUESTS[1], mixed]))

    rows = [padding.rows for padding in engine._state._recorded._recordings]
    assert rows == [6, 2]  # those of 3 clips, then of the one that is left


def test_a_recording_gives_prompts_to_as_many_rows_as_its_clips_have_texts(open_engine, recordings):
    engine = open_engine(record=True)
    of_two_texts = REQUESTS[1].model_copy(update={"negative_prompt": "drums"})

    for requests in (REQUESTS[1:3], [REQUESTS[1], of_two_texts]):
        begun = [engine.add_request(request) for request in requests]
        engine.step()  # which is recorded
        for request_id in begun:
            engine.abort(request_id)

    recorded = engine._state._recorded._recordings
    assert [padding.prompted for padding in recorded if padding.clips == 3] == [3, 6]


def test_a_step_is_recorded_once_for_one_clip_and_once_for_more(open_engine, recordings):
    engine = open_engine(record=True)

    list(engine.generate(REQUESTS[:1]))
    assert len(recordings) == 1
    list(engine.generate(REQUESTS))

    assert len(recordings) == 2


def test_between_changes_of_the_batch_a_step_is_a_replay_and_nothing_else(open_engine, recordings):
    engine = open_engine(record=True)
    for request in REQUESTS[:3]:
        engine.add_request(request)
    engine.step()

    with torch.inference_mode(), Notebook() as replayed:
        engine._state._recorded.replay()
    with Notebook() as seen:
        engine.step()

    assert len(recordings) == 1
    assert len(seen.done) == len(replayed.done) > 0


def test_where_a_step_cannot_be_recorded_clips_fail_and_give_their_memory_back(
    open_engine, recordings, monkeypatch
):
    def refuse(device, run):
        raise RuntimeError("a step could not be recorded")

    engine = open_engine(record=True)
    free = engine._cache.free_blocks
    with monkeypatch.context() as patched:
        patched.setattr(decode_state, "record_on_cuda", refuse)
        failures = list(engine.generate(REQUESTS[:2]))

    assert [failure.message for failure in failures] == ["a step could not be recorded"] * 2
    assert engine._cache.free_blocks == free
    (clip,) = engine.generate(REQUESTS[:1])
    assert clip.samples.std() > 0


def test_a_recording_is_filled_up_with_clips_that_stay_where_they_are(open_engine, recordings):
    engine = open_engine(record=True)
    engine.add_request(REQUESTS[0])
    engine.add_request(REQUESTS[1])
    for _ in range(5):
        engine.step()

    ((batch, _),) = engine._state._recorded._recordings.values()
    assert batch.spans.context_lens.tolist() == [6, 6, 6, 1, 1, 1]
    assert batch.positions.tolist() == [5, 5, 0]


def test_sampling_that_does_the_same_operations_gives_the_same_tokens():
    """The replacement above must be equivalent."""
    parameters = sampler.SamplingParameters(
        temperature=torch.tensor([1.0, 0.7, 1.5, 0.0]),
        top_k=torch.tensor([50, 0, 250, 5]),
        top_p=torch.tensor([0.0, 0.9, 0.5, 0.0]),
        cfg_coef=torch.ones(4),
    )
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 500, 300, generator=generator)
    uniforms = torch.rand(4, 500, generator=generator, dtype=torch.float64)

    assert torch.equal(
        sample_all(logits, parameters, uniforms), sampler.sample(logits, parameters, uniforms)
    )


def test_one_clip_without_guidance_is_not_harmed_by_spare_rows(open_engine, recordings):
    """The spare rows of a recording write into the cache too."""
    (expected,) = open_engine(record=False).generate(REQUESTS[:1])
    (made,) = open_engine(record=True).generate(REQUESTS[:1])

    assert np.allclose(made.samples, expected.samples, atol=1e-4)


def test_a_step_never_waits_for_the_device(open_engine, recordings):
    """Reading a number of a tensor waits until all work before it is done, every step anew."""
    engine = open_engine(record=True)
    for fields in ({"top_k": 50}, {"top_p": 0.9}, {"temperature": 0}):
        engine.add_request(GenerationRequest(prompt="piano", duration=1, seed=0, **fields))
    engine.step()

    with Notebook() as seen:
        engine.step()

    names = {operation.overloadpacket.__name__ for operation, *_ in seen.done}
    assert "cumsum" in names  # they are seen at all
    assert names.isdisjoint({"_local_scalar_dense", "nonzero", "masked_select", "unique"})


def test_nothing_is_recorded_on_the_cpu(mono):
    engine = Engine.open(mono.folder, EngineOptions("cpu", max_clips=1, cuda_graphs=True))

    assert engine._state._recorded is None
    assert engine.provenance.details["cuda_graphs"] is False
