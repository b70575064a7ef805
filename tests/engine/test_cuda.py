"""What must hold on an NVIDIA GPU; skipped where there is none."""

import itertools

import numpy as np
import pytest
import torch

from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.engine import decode_state, sound_streams
from musicgen_lab.engine.attention import attend
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.kernels.support import triton_works
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.rows import AttentionSpans
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source, SourceCodes
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


def beginning(frames=25):
    """Return random codes to begin with."""
    codes = torch.randint(512, (4, frames), generator=torch.Generator().manual_seed(0)).numpy()
    codec = open_engine("float32", max_clips=1).provenance.details["codec"]
    return Source.of_bytes(SourceCodes(codes.astype(np.uint16), codec, 50.0).to_bytes())


def unusual_requests():
    """Return clips of several windows, of given codes, of three rows, and with a second text."""
    source = beginning()
    fields = [
        {"duration": 31, "extend_stride": 18},
        {"duration": 2, "begin_with": source},
        {"duration": 31.5, "begin_with": source, "extend_stride": 29},
        {"duration": 2, "prompt_b": "drums", "mix": 0.4},
        {"duration": 1.5, "negative_prompt": LONG},
        {"duration": 1, "cfg_coef": 1, "prompt_b": "drums", "mix": 0.5},
    ]
    return [GenerationRequest(prompt="piano", seed=20 + i, **each) for i, each in enumerate(fields)]


def open_engine(dtype, *, device="cuda", max_clips=4, cuda_graphs=True):
    return Engine.open(
        EMBEDDED_FOLDER,
        EngineOptions(device, dtype, max_clips, cuda_graphs),
    )


def made(engine, requests):
    return {clip.request.seed: clip.samples for clip in engine.generate(requests)}


@pytest.mark.parametrize("size", [40, 64])
def test_attention_is_that_of_the_cpu(size):
    qkv, cache = drawn(5, 3, 4, size), drawn(2, 10, 4, BLOCK_LEN, size, seed=1)
    cache[:, BLOCK_TABLES[0][0], :, CONTEXT_LENS[0] :] = float("nan")  # what lies beyond
    spans, on_gpu = spans_of(), cache.cuda()

    assert triton_works(GPU)
    attention = Attention(5, 4, size, 192, GPU)
    spans_on_gpu = AttentionSpans(spans.block_tables.cuda(), spans.context_lens.cuda())
    attended = attention(qkv.flatten(1)[None].cuda(), on_gpu, spans_on_gpu)

    assert torch.allclose(attended.cpu(), attend(qkv, cache, spans).flatten(1), atol=1e-6)
    assert torch.equal(on_gpu.cpu().nan_to_num(), cache.nan_to_num())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_row_attends_with_the_same_bits_alone_and_in_any_number_of_programs(dtype):
    lens = torch.tensor([1, 200, 256, 257, 800, 1503], device=GPU)
    tables = torch.arange(6 * 24, device=GPU).view(6, 24)
    qkv = drawn(2, 6, 3 * 4 * 64).to(GPU)
    cache = drawn(2, 6 * 24, 4, BLOCK_LEN, 64, seed=1).to(GPU, dtype)
    attention = Attention(6, 4, 64, 1503, GPU)

    spans = AttentionSpans(tables, lens)
    together = attention(qkv, cache, spans, sharers=1)
    many = AttentionSpans(tables.repeat(50, 1), lens.repeat(50))  # which fill the GPU
    among_many = attention(qkv.repeat(1, 50, 1), cache, many)
    assert torch.equal(among_many, together.repeat(50, 1))

    for row in range(6):
        alone = AttentionSpans(tables[[row]], lens[[row]])
        for sharers in (1, 2, 4, 8):
            attended = attention(qkv[:, [row]].contiguous(), cache, alone, sharers)
            assert torch.equal(attended[0], together[row])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(6144, 2048), (2048, 8192), (192, 768), (300, 160)])  # (N, K)
def test_a_rows_product_has_the_same_bits_beside_any_number_of_others(shape, dtype):
    weight = (drawn(*shape) / shape[1] ** 0.5).to(GPU, dtype)
    x = drawn(300, shape[1], seed=1).to(GPU, dtype)
    multiply = SplitLinear(weight)

    whole = multiply(x)

    expected = x.double() @ weight.double().T
    assert (whole.sum(0) - expected).norm() <= 1e-5 * expected.norm() * (1 + len(whole))
    for rows in (1, 2, 15, 16, 17, 50, 63, 100, 129, 256):
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


def test_clips_of_several_windows_and_prompts_are_the_same_alone_and_together():
    """Windows begin with many given steps at once, and mixed prompts take a third row."""
    requests = [
        GenerationRequest(prompt="piano", duration=31, extend_stride=18, seed=0),
        GenerationRequest(prompt="piano", negative_prompt="drums", duration=2, seed=1),
        GenerationRequest(prompt="piano", prompt_b="drums", mix=0.5, duration=2, seed=2),
        GenerationRequest(prompt="drums", prompt_b="flute", mix=0.2, duration=30, seed=3),
    ]
    engine = open_engine("bfloat16")

    alone = {seed: clip for r in requests for seed, clip in made(engine, [r]).items()}
    together = made(engine, requests[::-1])

    assert together.keys() == alone.keys() == {0, 1, 2, 3}
    for seed, samples in together.items():
        assert np.array_equal(samples, alone[seed])


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


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_windows_given_codes_and_more_prompts_are_the_same_in_company(dtype, cuda_graphs):
    requests = unusual_requests()
    engine = open_engine(dtype, max_clips=8, cuda_graphs=cuda_graphs)
    company = [*REQUESTS[:3], *requests[::-1]]  # 20 rows where 16 fit: some join late

    alone = {seed: clip for r in requests for seed, clip in made(engine, [r]).items()}
    together = made(engine, company)

    assert len(together) == len(company)
    for seed, samples in alone.items():
        assert np.array_equal(together[seed], samples)


def test_streams_are_the_clips_within_a_third_of_a_16_bit_step(monkeypatch):
    moments = itertools.count(step=1000)  # every listener has always played everything
    monkeypatch.setattr(sound_streams.time, "monotonic", lambda: next(moments))
    requests, engine = [*unusual_requests()[:2], *REQUESTS[:2]], open_engine("bfloat16")
    alone = {seed: clip for r in requests for seed, clip in made(engine, [r]).items()}

    chunks, clips = {r.seed: [] for r in requests}, []
    for request in requests:
        engine.add_request(request, chunks[request.seed].append)
    while len(clips) < len(requests):
        clips += engine.step()

    for clip in clips:
        seed = clip.request.seed
        sound = np.concatenate([chunk.samples for chunk in chunks[seed]], axis=1)
        np.testing.assert_allclose(sound, clip.samples, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(clip.samples, alone[seed])


def test_a_recorded_step_makes_the_same_windows_and_mixes():
    requests = unusual_requests()

    recorded, expected = (
        made(open_engine("bfloat16", cuda_graphs=cuda_graphs), requests)
        for cuda_graphs in (True, False)
    )

    assert recorded.keys() == expected.keys()
    for seed, samples in recorded.items():
        assert np.array_equal(samples, expected[seed])


def test_greedy_clips_of_windows_given_codes_and_mixes_are_those_of_the_cpu_in_float32():
    requests = [
        GenerationRequest(**{**dict(request), "temperature": 0, "duration": 2})
        for request in unusual_requests()[1:]
    ]

    on_cpu, on_gpu = (
        {c.request.seed: c.codes for c in open_engine("float32", device=d).generate(requests)}
        for d in ("cpu", "cuda")
    )

    for seed, codes in on_gpu.items():
        assert np.array_equal(codes, on_cpu[seed])


def test_a_long_clip_begins_with_the_clip_of_one_window():
    engine = open_engine("bfloat16")
    short, long = (
        GenerationRequest(prompt="piano", seed=3, duration=duration) for duration in (30, 50)
    )

    codes = {c.request.duration: c.codes for c in engine.generate([short, long])}

    assert np.array_equal(codes[50][:, :1500], codes[30])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("bfloat16", 1e-1)]
)
def test_steps_at_once_differ_from_single_ones_by_rounding_alone(dtype, tolerance, monkeypatch):
    """The logits after 300 given steps, relative to their spread."""
    request = GenerationRequest(prompt="piano", seed=1, duration=10, begin_with=beginning(300))

    @torch.inference_mode()
    def logits_after_given_steps(engine):
        engine.add_request(request)
        engine._schedule()
        state, (clip,) = engine._state, engine._scheduler.running
        while clip.is_prefilling:
            state.prefill([clip])
        state.set_clips([clip])
        return engine.transformer.step(state._batch.rows, engine._cache.tensor).cpu()

    engine, other = (open_engine(dtype, max_clips=1, cuda_graphs=False) for _ in range(2))
    at_once = logits_after_given_steps(engine)
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", 1)
    monkeypatch.setattr(other.transformer, "prefill", other.transformer.step)
    single = logits_after_given_steps(other)

    assert (at_once - single).abs().max() <= tolerance * single.std()
