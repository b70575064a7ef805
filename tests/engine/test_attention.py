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
from musicgen_lab.engine.attention import attend, attend_masked, kernel_works
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.rows import Reach
from musicgen_lab.errors import MusicGenLabWarning
from musicgen_lab.request import GenerationRequest

PLACES = [1, 2, 3, 6, 4]
LENGTHS = [13, 13, 13, 1, 130]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reach_of(places, lengths):
    return Reach(torch.tensor(places), torch.tensor(lengths))


@pytest.fixture
def cache():
    """Keys and values of 7 places, 4 heads, 150 steps, 40 wide."""
    return drawn(2, 7, 4, 150, 40)


@pytest.fixture
def asked():
    """Queries of 5 rows."""
    return drawn(5, 1, 4, 40, seed=1)


def test_it_is_scaled_dot_product_attention_over_a_rows_own_place_and_length(asked, cache):
    attended = attend(asked, cache, reach_of(PLACES, LENGTHS))

    for row, (place, length) in enumerate(zip(PLACES, LENGTHS, strict=True)):
        known, told = cache[:, place, :, :length]
        expected = F.scaled_dot_product_attention(asked[row].transpose(0, 1), known, told)
        assert torch.allclose(attended[row], expected.squeeze(1), atol=1e-6)


@pytest.mark.parametrize("way", [attend, attend_masked])
def test_keys_and_values_that_come_with_a_query_are_written_and_attended_to(cache, way):
    asked, before = drawn(5, 3, 4, 40, seed=1), cache.clone()
    steps = [length - 1 for length in LENGTHS]

    attended = way(asked, cache, reach_of(PLACES, LENGTHS))

    for row, (place, step) in enumerate(zip(PLACES, steps, strict=True)):
        assert torch.equal(cache[:, place, :, step], asked[row, 1:])
        before[:, place, :, step] = asked[row, 1:]
    assert torch.equal(cache, before)  # and nowhere else
    assert torch.equal(attended, way(asked[:, :1], cache, reach_of(PLACES, LENGTHS)))


def test_other_devices_get_the_same_from_torchs_attention_with_a_mask(asked, cache):
    reach = reach_of(PLACES, LENGTHS)
    cache[:, PLACES[0], :, LENGTHS[0] :] = float("nan")  # what lies beyond is not read

    masked = attend_masked(asked, cache, reach)

    assert torch.allclose(masked, attend(asked, cache, reach), atol=1e-6)


def test_clips_that_come_and_go_are_the_same_with_masked_attention(monkeypatch):
    requests = [
        GenerationRequest(prompt=prompt, duration=duration, temperature=0, cfg_coef=cfg_coef)
        for prompt, duration, cfg_coef in [("piano", 1, 3), ("flute", 2, 1), ("piano", 1.5, 3)]
    ]

    def made(attention):
        monkeypatch.setattr(transformer, "attend", attention)
        engine = Engine.open(EMBEDDED_FOLDER, device="cpu", dtype="float32", slots=2)
        clips = {clip.request.duration: clip.samples for clip in engine.generate(requests)}
        return [clips[request.duration] for request in requests]

    for one, other in zip(made(attend), made(attend_masked), strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_a_rows_bits_are_the_same_alone_and_in_any_company(asked, cache):
    together = attend(asked, cache, reach_of(PLACES, LENGTHS))
    order = [4, 2, 0, 3, 1]
    places, lengths = [PLACES[i] for i in order], [LENGTHS[i] for i in order]
    reordered = attend(asked[order], cache, reach_of(places, lengths))

    assert torch.equal(reordered, together[order])
    for row in range(5):
        reach = reach_of([PLACES[row]], [LENGTHS[row]])
        assert torch.equal(attend(asked[row : row + 1], cache, reach)[0], together[row])


def test_it_works_where_nothing_can_be_written_to_keep_the_kernel():
    program = """if True:
        import torch
        from musicgen_lab.engine.attention import attend
        from musicgen_lab.engine.rows import Reach
        reach = Reach(torch.tensor([0]), torch.tensor([3]))
        print(attend(torch.ones(1, 1, 2, 8), torch.ones(2, 1, 2, 5, 8), reach).sum().item())
    """
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "16.0\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_no_kernel_can_be_made_for_a_gpu_the_user_is_told():
    with pytest.warns(MusicGenLabWarning, match="triton cannot make kernels here"):
        assert not kernel_works(torch.device("cuda"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_in_one_row_is_seen_there_and_only_there(asked, cache, bad):
    cache[:, PLACES[1], :, 5] = bad

    attended = attend(asked, cache, reach_of(PLACES, LENGTHS))

    assert not attended[1].isfinite().any()
    assert attended[[0, 2, 3, 4]].isfinite().all()
