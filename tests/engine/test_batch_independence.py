"""A clip's samples are equal bit for bit, independent of the rest of its batch."""

import itertools

import numpy as np
import pytest
import torch

from musicgen_lab.engine.batch import Batch
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.linear import (
    FixedRowsLinear,
    HalfWeightLinear,
    PackedLinear,
    bfloat16_is_fast,
)
from musicgen_lab.engine.options import EngineOptions
from tests.support.cases import PROMPTS, sampled, tokens_of

GRID = [
    sampled(temperature=temperature, cfg_coef=cfg_coef, top_k=top_k, top_p=top_p, seed=seed)
    for seed, (temperature, cfg_coef, (top_k, top_p)) in enumerate(
        itertools.product([0.7, 1.0, 1.6], [0.0, 1.0, 3.0, 7.0], [(250, 0.0), (0, 0.9)])
    )
]


def by_key(clips):
    return {clip.request.key(): clip.samples for clip in clips}


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """Work that is split between threads must come out the same too."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(case):
    """Every clip of the grid, made by itself."""
    return by_key(clip for request in GRID for clip in case.engine.generate([request]))


def test_a_clip_alone_is_the_same_in_a_full_batch(case, alone):
    together = by_key(case.engine.generate(GRID))

    assert together.keys() == alone.keys()
    for key, samples in together.items():
        assert np.array_equal(samples, alone[key])


@pytest.mark.parametrize(
    ("dtype", "threads"), [("float32", 1), ("float32", 2), ("float32", 3), ("bfloat16", 2)]
)
def test_every_logit_is_the_same_in_a_full_batch(case, dtype, threads, monkeypatch):
    """Sampling hides most last bits, and then a clip in hundreds turns out another."""
    seen = {}
    guide = Batch.guide

    def remember(batch, logits):
        guided = guide(batch, logits)
        for clip, row in zip(engine._scheduler.running, guided, strict=True):
            seen[clip.request.seed, clip.steps_done] = row.clone()
        return guided

    monkeypatch.setattr(Batch, "guide", remember)
    torch.set_num_threads(threads)
    try:
        engine = Engine.open(case.folder, EngineOptions("cpu", dtype, 16))
        requests = GRID[::5]  # every temperature and cfg_coef, top_k and top_p
        by_key(clip for request in requests for clip in engine.generate([request]))
        alone, seen = seen, {}
        by_key(engine.generate(requests))
    finally:
        torch.set_num_threads(2)

    assert seen.keys() == alone.keys()
    assert [place for place, row in seen.items() if not torch.equal(row, alone[place])] == []


def test_a_clip_is_the_same_in_another_order(case, alone):
    for samples_by_key in [by_key(case.engine.generate(GRID[::-1][:n])) for n in (3, 9, 16)]:
        for key, samples in samples_by_key.items():
            assert np.array_equal(samples, alone[key])


def test_a_clip_is_the_same_joining_late_beside_other_lengths_and_prompts(case, alone):
    engine = case.engine
    done = []
    for request in GRID[:6]:
        engine.add_request(sampled(PROMPTS[1], duration=1.0 + 0.3 * len(done), seed=99))
        engine.add_request(request)
        for _ in range(7):
            done += engine.step()
    while len(done) < 12:
        done += engine.step()

    done = by_key(done)
    for request in GRID[:6]:
        assert np.array_equal(done[request.key()], alone[request.key()])


def test_a_clip_is_the_same_with_other_slots(case, alone):
    engine = Engine.open(case.folder, EngineOptions("cpu", "float32", 3))

    for key, samples in by_key(engine.generate(GRID[:7])).items():
        assert np.array_equal(samples, alone[key])


def test_a_clip_is_the_same_in_bfloat16(mono):
    engine = Engine.open(mono.folder, EngineOptions("cpu", "bfloat16", 8))
    together = by_key(engine.generate(GRID[:8]))

    for request in GRID[:8]:
        (clip,) = engine.generate([request])
        assert np.array_equal(clip.samples, together[request.key()])


def test_a_shorter_clip_has_the_codes_of_a_longer_one_until_its_end_is_near(mono):
    long = tokens_of(mono.engine, sampled(duration=1.5, seed=5))
    short = tokens_of(mono.engine, sampled(duration=1.0, seed=5))

    # Within the last codebook's lag the first codebooks have ended, which the others hear.
    same = short.shape[1] - max(mono.engine.config.delays)
    assert torch.equal(short[:, :same], long[:, :same])


@pytest.mark.parametrize("width", [40, 64, 257, 1024])
@pytest.mark.parametrize("exact", [True, False])
def test_rows_of_a_half_weight_layer_do_not_depend_on_each_other(width, exact):
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(96, width, generator=generator) / width**0.5
    weight = weight.half().float() if exact else weight
    x = torch.randn(64, width, generator=generator)
    layer = HalfWeightLinear(weight, torch.randn(96, generator=generator))

    whole = layer(x)

    for rows in range(1, 64):
        assert torch.equal(layer(x[:rows]), whole[:rows])


@pytest.mark.skipif(not bfloat16_is_fast(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("width", [48, 160, 1024])
def test_rows_of_a_packed_layer_do_not_depend_on_each_other(width):
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(96, width, generator=generator).bfloat16()
    bias = torch.randn(96, generator=generator).bfloat16()
    x = torch.randn(64, width, generator=generator).bfloat16()
    layer = PackedLinear(weight, bias, rows=64)

    whole = layer(x)

    for rows in range(1, 64):
        assert torch.equal(layer(x[:rows]), whole[:rows])
    expected = x.float() @ weight.float().T + bias.float()
    assert (whole.float() - expected).abs().max() <= 2**-8 * expected.abs().max()


@pytest.mark.parametrize("scale", [1e-5, 1.0, 100.0])
def test_a_half_weight_layer_keeps_float32_weights(scale):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator) * scale

    read_back = HalfWeightLinear(weight)(torch.eye(32)).T

    # 22 bits, or the smallest number of the low half where the weights are tiny.
    assert (read_back - weight).abs().max() <= max(2.0**-22 * weight.abs().max(), 2.0**-36)


def test_rows_of_a_fixed_rows_layer_do_not_depend_on_each_other():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator)
    x = torch.randn(20, 64, generator=generator)
    layer = FixedRowsLinear(weight, None, rows=8)

    whole = layer(x)

    for rows in range(1, 20):
        assert torch.equal(layer(x[:rows]), whole[:rows])
    assert torch.allclose(whole, x @ weight.T, atol=1e-4)
