"""What must hold on an NVIDIA GPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.engine.attention import attend
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.request import GenerationRequest
from tests.engine.test_attention import BLOCK_LEN, BLOCK_TABLES, CONTEXT_LENS, drawn, spans_of

pytest.importorskip("triton", reason="triton comes with torch on Linux only")

from musicgen_lab.engine.kernels.attention import Attention
from musicgen_lab.engine.kernels.linear import SplitLinear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

GPU = torch.device("cuda")
LONG = "a long piano piece, " * 20
REQUESTS = [
    GenerationRequest(prompt=prompt, duration=duration, cfg_coef=cfg_coef, seed=seed, **fields)
    for seed, (prompt, duration, cfg_coef, fields) in enumerate(
        [
            ("piano", 2, 3, {}),
            ("piano", 1, 1, {"top_k": 0, "top_p": 0.9}),
            ("flute and drums", 3, 3, {"temperature": 0.7}),
            ("flute and drums", 2.5, 0, {"top_k": 50}),
            (LONG, 2, 7, {}),
            ("drums", 1.5, 3, {"temperature": 0}),
        ]
    )
]


def open_engine(dtype, *, device="cuda", max_clips=4, cuda_graphs=True):
    return Engine.open(
        EMBEDDED_FOLDER,
        EngineOptions(device, dtype, max_clips, cuda_graphs),
    )


def made(engine, requests):
    return {clip.request.seed: clip.samples for clip in engine.generate(requests)}


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("size", [40, 64])
def test_attention_is_that_of_the_cpu(size, segments):
    qkv, cache = drawn(5, 3, 4, size), drawn(2, 10, 4, BLOCK_LEN, size, seed=1)
    cache[:, BLOCK_TABLES[0][0], :, CONTEXT_LENS[0] :] = float("nan")  # what lies beyond
    spans, on_gpu = spans_of(), cache.cuda()

    assert triton_works(GPU)
    attention = Attention(5, 4, size, GPU, segments=segments)
    spans_on_gpu = AttentionSpans(spans.block_tables.cuda(), spans.context_lens.cuda())
    attended = attention(qkv.flatten(1)[None].cuda(), on_gpu, spans_on_gpu)

    assert torch.allclose(attended.cpu(), attend(qkv, cache, spans).flatten(1), atol=1e-6)
    assert torch.equal(on_gpu.cpu().nan_to_num(), cache.nan_to_num())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(6144, 2048), (2048, 8192), (192, 768), (300, 160)])  # (N, K)
def test_a_rows_product_has_the_same_bits_beside_any_number_of_others(shape, dtype):
    weight = (drawn(*shape) / shape[1] ** 0.5).to(GPU, dtype)
    x = drawn(64, shape[1], seed=1).to(GPU, dtype)
    multiply = SplitLinear(weight)

    whole = multiply(x)

    expected = x.double() @ weight.double().T
    assert (whole.sum(0) - expected).norm() <= 1e-5 * expected.norm() * (1 + len(whole))
    for rows in (1, 2, 15, 16, 17, 50, 63):
        assert torch.equal(multiply(x[:rows]), whole[:, :rows])
        assert torch.equal(multiply(x[rows:].clone()), whole[:, rows:])


def test_greedy_clips_are_those_of_the_cpu_in_float32():
    greedy = [
        GenerationRequest(prompt=prompt, duration=2, temperature=0, cfg_coef=cfg_coef, seed=seed)
        for seed, (prompt, cfg_coef) in enumerate([("piano", 3), ("drums", 1), (LONG, 2)])
    ]

    on_cpu, on_gpu = (
        made(open_engine("float32", device=device), greedy) for device in ("cpu", "cuda")
    )

    assert on_gpu.keys() == on_cpu.keys()
    for seed, samples in on_gpu.items():
        assert np.abs(samples - on_cpu[seed]).max() < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_recorded_step_makes_the_same_clips(dtype):
    recorded, not_recorded = (
        open_engine(dtype, cuda_graphs=cuda_graphs) for cuda_graphs in (True, False)
    )
    assert recorded.provenance.details["cuda_graphs"] is True
    assert not_recorded.provenance.details["cuda_graphs"] is False

    clips, expected = made(recorded, REQUESTS), made(not_recorded, REQUESTS)

    assert clips.keys() == expected.keys()
    for seed, samples in clips.items():
        assert np.array_equal(samples, expected[seed])


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_clip_alone_is_the_same_in_a_full_batch(dtype, cuda_graphs):
    engine = open_engine(dtype, max_clips=len(REQUESTS), cuda_graphs=cuda_graphs)

    alone = {seed: clip for r in REQUESTS for seed, clip in made(engine, [r]).items()}
    together = made(engine, REQUESTS[::-1])

    assert together.keys() == alone.keys()
    for seed, samples in together.items():
        assert np.array_equal(samples, alone[seed])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_clip_is_the_same_joining_late(dtype):
    engine = open_engine(dtype)
    alone = {seed: clip for r in REQUESTS for seed, clip in made(engine, [r]).items()}

    together = []
    for request in REQUESTS:
        engine.add_request(request)
        for _ in range(9):
            together += engine.step()
    while len(together) < len(REQUESTS):
        together += engine.step()

    for clip in together:
        assert np.array_equal(clip.samples, alone[clip.request.seed])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_clip_alone_is_the_same_in_a_grid(dtype):
    """In one of another number of rows, whose products are padded to other sizes."""
    grid = [
        GenerationRequest(
            prompt="piano", duration=1, temperature=1 + i / 10, cfg_coef=1.5 + j, seed=5 * i + j
        )
        for i in range(5)
        for j in range(5)
    ]
    engine = open_engine(dtype, max_clips=25)

    together = made(engine, grid)

    for request in grid[::6]:
        alone = made(engine, [request])
        assert np.array_equal(alone[request.seed], together[request.seed])
