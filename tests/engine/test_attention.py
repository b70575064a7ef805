"""Attention of one step: what it computes, and that a row's bits do not depend on the others."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.engine import transformer
from musicgen_lab.engine.attention import attend, attend_masked
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.errors import MusicGenLabWarning
from musicgen_lab.request import GenerationRequest

BLOCK_TABLES = [[1, 0, 0], [2, 0, 0], [3, 0, 0], [6, 0, 0], [4, 9, 7]]
CONTEXT_LENS = [13, 13, 13, 1, 130]
BLOCK_LEN = 64


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spans_of(block_tables=BLOCK_TABLES, context_lens=CONTEXT_LENS):
    return AttentionSpans(torch.tensor(block_tables), torch.tensor(context_lens))


def keys_values_of(cache, row):
    """Return the keys and values of a row in one piece: (2, H, T, D)."""
    return cache[:, BLOCK_TABLES[row]].transpose(1, 2).flatten(2, 3)[:, :, : CONTEXT_LENS[row]]


@pytest.fixture
def cache():
    """Keys and values of 10 blocks, 4 heads, 64 steps, 40 wide."""
    return drawn(2, 10, 4, BLOCK_LEN, 40)


@pytest.fixture
def queries():
    """Queries of 5 rows."""
    return drawn(5, 1, 4, 40, seed=1)


@pytest.mark.parametrize("size", [1, 100])  # with 100, most exponentials are below float32's range
def test_it_is_scaled_dot_product_attention_over_a_rows_own_blocks_and_length(queries, cache, size):
    queries *= size

    attended = attend(queries, cache, spans_of())

    for row in range(5):
        keys, values = keys_values_of(cache, row)
        expected = F.scaled_dot_product_attention(queries[row].transpose(0, 1), keys, values)
        assert torch.allclose(attended[row], expected.squeeze(1), atol=1e-6 * size)


def test_a_rows_bits_do_not_depend_on_how_its_steps_are_cut_into_blocks(queries, cache):
    row, whole = 4, torch.zeros(2, 1, 4, 150, 40)
    whole[:, 0, :, : CONTEXT_LENS[row]] = keys_values_of(cache, row)

    in_blocks = attend(queries[row:], cache, spans_of(BLOCK_TABLES[row:], CONTEXT_LENS[row:]))
    in_one = attend(queries[row:], whole, spans_of([[0]], CONTEXT_LENS[row:]))

    assert torch.equal(in_blocks, in_one)


@pytest.mark.parametrize("way", [attend, attend_masked])
def test_keys_and_values_that_come_with_a_query_are_written_and_attended_to(cache, way):
    qkv, before = drawn(5, 3, 4, 40, seed=1), cache.clone()

    attended = way(qkv, cache, spans_of())

    for row, (blocks, length) in enumerate(zip(BLOCK_TABLES, CONTEXT_LENS, strict=True)):
        block, step = blocks[(length - 1) // BLOCK_LEN], (length - 1) % BLOCK_LEN
        assert torch.equal(cache[:, block, :, step], qkv[row, 1:])
        before[:, block, :, step] = qkv[row, 1:]
    assert torch.equal(cache, before)  # and nowhere else
    assert torch.equal(attended, way(qkv[:, :1], cache, spans_of()))


def test_other_devices_get_the_same_from_torchs_attention_with_a_mask(queries, cache):
    cache[:, BLOCK_TABLES[0][0], :, CONTEXT_LENS[0] :] = float("nan")  # what lies beyond
    cache[:, 0] = float("nan")  # a block that no row's context comes to

    masked = attend_masked(queries, cache, spans_of())

    assert torch.allclose(masked, attend(queries, cache, spans_of()), atol=1e-6)


def test_clips_that_start_and_finish_at_different_steps_are_the_same_with_masked_attention(
    monkeypatch,
):
    requests = [
        GenerationRequest(prompt=prompt, duration=duration, temperature=0, cfg_coef=cfg_coef)
        for prompt, duration, cfg_coef in [("piano", 1, 3), ("flute", 2, 1), ("piano", 1.5, 3)]
    ]

    def made(attention):
        monkeypatch.setattr(transformer, "attend", attention)
        engine = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", "float32", 2))
        clips = {clip.request.duration: clip.samples for clip in engine.generate(requests)}
        return [clips[request.duration] for request in requests]

    for one, other in zip(made(attend), made(attend_masked), strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_a_rows_bits_are_the_same_alone_and_in_any_batch(queries, cache):
    together = attend(queries, cache, spans_of())
    order = [4, 2, 0, 3, 1]
    spans = spans_of([BLOCK_TABLES[i] for i in order], [CONTEXT_LENS[i] for i in order])
    reordered = attend(queries[order], cache, spans)

    assert torch.equal(reordered, together[order])
    for row in range(5):
        spans = spans_of([BLOCK_TABLES[row]], [CONTEXT_LENS[row]])
        assert torch.equal(attend(queries[row : row + 1], cache, spans)[0], together[row])


def test_it_works_where_the_compiled_kernel_cannot_be_cached():
    program = """if True:
        import torch
        from musicgen_lab.engine.attention import attend
        from musicgen_lab.engine.rows import AttentionSpans
        spans = AttentionSpans(torch.tensor([[0]]), torch.tensor([3]))
        print(attend(torch.ones(1, 1, 2, 8), torch.ones(2, 1, 2, 5, 8), spans).sum().item())
    """
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}
    quickly = {"NUMBA_OPT": "0"}  # compiled in two thirds of the time

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nowhere | quickly,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "16.0\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_user_is_warned_where_no_kernel_can_be_compiled_for_a_gpu():
    with pytest.warns(MusicGenLabWarning, match="triton cannot make kernels here"):
        assert not triton_works(torch.device("cuda"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_in_one_row_is_seen_there_and_only_there(queries, cache, bad):
    cache[:, BLOCK_TABLES[1][0], :, 5] = bad

    attended = attend(queries, cache, spans_of())

    assert not attended[1].isfinite().any()
    assert attended[[0, 2, 3, 4]].isfinite().all()
