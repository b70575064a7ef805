"""The kernels for NVIDIA's GPUs, without one: their numbers, and that they compile.

triton's interpreter runs them on the CPU, and its compiler makes machine code for GPUs that are not
there.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from musicgen_lab.engine.attention import attend
from musicgen_lab.engine.batch import make_prefill
from musicgen_lab.engine.clip_state import ClipRow, ClipState
from musicgen_lab.engine.rows import AttentionSpans, StepRows
from musicgen_lab.engine.transformer import TorchStep
from musicgen_lab.models.config import ModelConfig, Source, expected_shapes
from musicgen_lab.request import GenerationRequest
from tests.engine import interpreted
from tests.engine.test_attention import BLOCK_LEN, BLOCK_TABLES, CONTEXT_LENS, drawn, spans_of

triton = pytest.importorskip("triton", reason="triton comes with torch on Linux only")

SPANS = (torch.tensor(BLOCK_TABLES), torch.tensor(CONTEXT_LENS))
BLOCKS = 25
LONG_TABLES = torch.arange(BLOCKS).flip(0).view(5, -1)  # (5, 5) blocks
LONG_LENS = torch.tensor([13, 100, 300, 1, 257])  # up to five segments
LONG_SPANS = (LONG_TABLES, LONG_LENS)
CONFIG = ModelConfig(
    dim=48,
    layers=2,
    heads=3,
    ffn_dim=96,
    text_dim=16,
    card=20,
    delays=[0, 1],
    bias_proj=True,
    sample_rate=32_000,
    frame_rate=50.0,
    dtype="float32",
    source=Source(name="random"),
)


def parts_of(tensor, count):
    """Cut a tensor into partial sums: (count, *shape)."""
    parts = drawn(count, *tensor.shape, seed=7)
    parts[0] += tensor - parts.sum(0)
    return parts


@pytest.mark.parametrize("sharers", [1, 2])
@pytest.mark.parametrize("kinds", [1, 3])
def test_attention_is_that_of_the_cpu(interpret, kinds, sharers):
    size = 40  # no power of two, as the head of some models
    qkv, cache = drawn(5, kinds, 2, size), drawn(2, BLOCKS, 2, BLOCK_LEN, size, seed=1)
    cache[:, LONG_TABLES[0, 0], :, LONG_LENS[0] :] = float("nan")  # what lies beyond

    parts = parts_of(qkv.flatten(1), 2)
    attended, written = interpret(interpreted.attend, parts, cache, *LONG_SPANS, sharers)

    expected = attend(qkv, cache, AttentionSpans(*LONG_SPANS)).flatten(1)
    assert torch.allclose(attended, expected, atol=2e-6)
    assert torch.allclose(written, cache, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_attention_in_16_bits_is_computed_in_float32(interpret, dtype):
    qkv = drawn(1, 5, 3 * 2 * 64).to(dtype)
    cache = drawn(2, 10, 2, BLOCK_LEN, 64, seed=1).to(dtype)

    attended, _ = interpret(interpreted.attend, qkv, cache, *SPANS)

    assert attended.dtype == dtype
    expected = attend(qkv.float().view(5, 3, 2, 64), cache.float(), spans_of()).flatten(1)
    assert torch.allclose(attended.float(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("sharers", [1, 2])
def test_no_keys_give_zeros_and_what_is_not_finite_stays_in_its_row(interpret, sharers):
    qkv, cache = drawn(1, 5, 2 * 40), drawn(2, BLOCKS, 2, BLOCK_LEN, 40, seed=1)
    cache[:, LONG_TABLES[1, 0], :, 5] = float("inf")
    lengths = LONG_LENS.clone()
    lengths[4] = 0

    attended, _ = interpret(interpreted.attend, qkv, cache, LONG_TABLES, lengths, sharers)

    assert torch.equal(attended[4], torch.zeros_like(attended[4]))
    assert not attended[1].isfinite().any()
    assert attended[[0, 2, 3]].isfinite().all()


def test_a_row_attends_with_the_same_bits_alone_and_in_any_number_of_programs(interpret):
    qkv, cache = drawn(2, 5, 3 * 2 * 40), drawn(2, BLOCKS, 2, BLOCK_LEN, 40, seed=1)

    together, _ = interpret(interpreted.attend, qkv, cache, *LONG_SPANS)

    for row, sharers in ((1, 1), (1, 2), (2, 2), (2, 8), (4, 4)):
        spans = [part[[row]] for part in LONG_SPANS]
        alone, _ = interpret(interpreted.attend, qkv[:, [row]], cache, *spans, sharers)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("tiles", [None, (16, 32, 3), (64, 16, 2)])
@pytest.mark.parametrize("shape", [(64, 64), (100, 48), (160, 640)])  # (N, K)
def test_the_parts_of_a_product_add_up_to_it(interpret, shape, tiles):
    weight, x = drawn(*shape), drawn(20, shape[1], seed=1)

    parts = interpret(interpreted.multiply, x, weight, None, tiles)

    assert tiles is None or len(parts) == tiles[2]
    assert torch.allclose(parts.sum(0), x @ weight.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "fewer"), [(16, 1), (16, 15), (70, 33), (70, 65)])
def test_a_rows_product_has_the_same_bits_beside_others(interpret, rows, fewer):
    """Padded to equally many rows: numpy, which multiplies here, adds up others in other orders."""
    weight, x = drawn(100, 160), drawn(rows, 160, seed=1)

    whole = interpret(interpreted.multiply, x, weight)
    few = interpret(interpreted.multiply, x[:fewer].clone(), weight)

    assert torch.equal(few, whole[:, :fewer])


def test_bias_and_gelu_follow_an_undivided_product(interpret):
    weight, bias, x = drawn(100, 48) / 7, drawn(100, seed=2), drawn(5, 48, seed=1)

    (product,) = interpret(interpreted.multiply, x, weight, bias, (64, 32, 1), True)

    assert torch.allclose(product, F.gelu(F.linear(x, weight, bias)), atol=1e-5)


def test_a_product_is_added_to_the_residual_and_the_sum_normalised(interpret):
    x, partials = drawn(5, 48), drawn(3, 4, 48, seed=1)  # the fifth row has none
    weight, bias = drawn(48, seed=2), drawn(48, seed=3)
    expected = x.clone()
    expected[:4] += partials.sum(0)

    added, normed = interpret(interpreted.add_and_norm, partials, x, weight, bias)

    assert torch.allclose(added, expected, atol=1e-6)
    assert torch.allclose(normed, F.layer_norm(expected, (48,), weight, bias), atol=1e-5)


@pytest.fixture(scope="module")
def weights():
    """A tiny model's."""
    return {
        name: drawn(*shape, seed=seed) / math.sqrt(shape[-1])
        for seed, (name, shape) in enumerate(expected_shapes(CONFIG).items())
    }


TOKENS = torch.randint(0, 20, (5, 2), generator=torch.Generator().manual_seed(0))
PROMPT_SPANS = (torch.tensor([[8], [5]]), torch.tensor([7, 12]))  # the first two rows have one
CACHE = drawn(2, 2, 10, 3, BLOCK_LEN, 16, seed=99)


@pytest.fixture(scope="module")
def step_of_all(interpret, weights):
    """A step of five rows, and the cache after it."""
    config = CONFIG.model_dump_json()
    return interpret(interpreted.step, config, weights, TOKENS, SPANS, PROMPT_SPANS, CACHE)


def test_a_step_is_that_of_torch(step_of_all, weights):
    logits, written = step_of_all

    cache = CACHE.clone()
    take_step = TorchStep(
        CONFIG, weights, device=torch.device("cpu"), dtype=torch.float32, rows=len(TOKENS)
    )
    rows = StepRows(TOKENS, AttentionSpans(*SPANS), AttentionSpans(*PROMPT_SPANS))
    expected = take_step(rows, cache)
    assert torch.allclose(logits, expected, atol=1e-5 * expected.abs().max().item())
    assert torch.allclose(written, cache, atol=1e-5)


def test_a_rows_step_has_the_same_bits_alone(interpret, weights, step_of_all):
    config = CONFIG.model_dump_json()

    def step(rows, prompted):
        spans, prompt_spans = ([part[rows] for part in SPANS], [p[prompted] for p in PROMPT_SPANS])
        logits, _ = interpret(
            interpreted.step, config, weights, TOKENS[rows], spans, prompt_spans, CACHE
        )
        return logits

    together, _ = step_of_all

    assert torch.equal(step([1], [1])[0], together[1])
    assert torch.equal(step([3, 4], []), together[3:])


SHARED_KIB = {80: 163, 86: 99, 90: 227}  # of shared memory that a block may have
POINTERS = {"tokens": "i64", "lengths": "i64", "block_tables": "i64", "context_lens": "i64"}
POINTERS |= dict.fromkeys(["partials", "scratch"], "fp32") | {"finished": "i32"}
SIZES = ["rows", "n", "k", "dim", "codebook_stride", "added_rows", "head_dim"]
SIZES += ["table_stride", "block_stride", "head_stride"]


@pytest.mark.parametrize(
    ("capability", "dtype"),  # A100; A10, L4, L40S; H100, H200
    [(80, "bf16"), (86, "bf16"), (86, "fp32"), (90, "bf16"), (90, "fp16"), (90, "fp32")],
)
def test_the_kernels_compile_for_gpus_that_are_not_here(dtype, capability, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from musicgen_lab.engine.kernels.attention import KEYS, SEGMENT_LEN, attend_rows
    from musicgen_lab.engine.kernels.linear import choose_loads, choose_tiles, multiply_rows
    from musicgen_lab.engine.kernels.norm import add_and_normalise_rows, embed_rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    dependent = capability >= 90
    itemsize, shared_kib = 4 if dtype == "fp32" else 2, SHARED_KIB[capability]
    tiles = choose_tiles(2048, 2048, itemsize, split=True)
    product = {"BLOCK_N": tiles.block_n, "BLOCK_K": tiles.block_k, "EVEN": True}
    product |= {"K_PER_SPLIT": tiles.k_per_split, "GELU": True, "bias": None}
    attention = {"SPLITS": 4, "KINDS": 3, "SIZE": 64, "KEYS": KEYS, "BLOCK_LEN": 64}
    attention |= {"SEGMENT_LEN": SEGMENT_LEN, "SEGMENTS": 32, "SHARERS": 4}
    kernels = [
        (add_and_normalise_rows, {"SPLITS": 4, "SIZE": 2048}, {}),
        (embed_rows, {"CODEBOOKS": 4, "SIZE": 2048}, {}),
        (attend_rows, attention, {}),
        (attend_rows, attention | {"KINDS": 1, "SHARERS": 1, "DEPENDENT": False}, {}),
    ]
    for rows in (16, 128):
        loads = choose_loads(
            tiles, rows, itemsize, shared_bytes=shared_kib * 1024, dependent=dependent
        )
        options = {"num_warps": loads.warps, "num_stages": loads.stages}
        kernels.append((multiply_rows, product | {"ROWS": rows, "AHEAD": loads.ahead}, options))
    for kernel, constants, options in kernels:
        constants = {"DEPENDENT": dependent} | constants
        signature = {
            name: "constexpr"
            if name in constants
            else "i32"
            if name in SIZES
            else "fp32"
            if name in ("eps", "scale")
            else "*" + POINTERS.get(name, dtype)
            for name in kernel.arg_names
        }
        divisible = {
            (index,): [["tt.divisibility", 16]]
            for index, (name, kind) in enumerate(signature.items())
            if kind.startswith("*") or name in ("n", "k", "dim", "head_dim")
        }
        source = ASTSource(kernel, signature, constants, divisible)

        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)

        assert len(compiled.asm["cubin"]) > 1000
        assert compiled.metadata.shared <= shared_kib * 1024


def test_steps_at_once_write_the_keys_and_values_of_torchs(interpret, weights):
    """Five steps of one sequence, each of which attends to the ones before it."""
    config, spans = CONFIG.model_dump_json(), (torch.tensor([[3]] * 5), torch.arange(1, 6))
    prompt_spans = (torch.tensor([[8]] * 5), torch.full((5,), 7))

    written = interpret(interpreted.prefill, config, weights, TOKENS, spans, prompt_spans, CACHE)

    cache = CACHE.clone()
    steps = TorchStep(CONFIG, weights, device=torch.device("cpu"), dtype=torch.float32, rows=5)
    steps.prefill(StepRows(TOKENS, AttentionSpans(*spans), AttentionSpans(*prompt_spans)), cache)
    assert not torch.allclose(cache, CACHE)
    assert torch.allclose(written, cache, atol=1e-5)


def test_the_chunks_of_several_clips_at_once_are_those_of_each_clip_alone(interpret, weights):
    """With and without texts; the first one's contexts end in two segments."""
    texts = {"a": ([8], 7), "b": ([9], 12), "": ([], 0)}
    rows_and_steps = [
        ([("a", [0, 1]), ("", [2, 3])], range(62, 66)),
        ([("", [4])], range(3)),
        ([("b", [5])], range(10, 12)),
        ([("a", [6]), ("b", [7])], range(1)),
    ]
    tokens = torch.randint(0, 20, (4, 70, 2), generator=torch.Generator().manual_seed(1))
    chunks = []
    for slot, (rows, steps) in enumerate(rows_and_steps):
        clip_rows = [ClipRow(text, blocks, *texts[text]) for text, blocks in rows]
        request = GenerationRequest(prompt="x")
        chunks.append((ClipState(slot, request, slot, [], clip_rows, tokens[0]), steps))

    def prefill(some):
        rows = make_prefill(some, tokens)
        spans, prompts = (
            (each.block_tables, each.context_lens) for each in (rows.spans, rows.prompt_spans)
        )
        config = CONFIG.model_dump_json()
        return interpret(interpreted.prefill, config, weights, rows.tokens, spans, prompts, CACHE)

    together = prefill(chunks)

    for clip, steps in chunks:
        alone = prefill([(clip, steps)])
        blocks = [block for row in clip.rows for block in row.blocks]
        assert not torch.equal(alone[:, :, blocks], CACHE[:, :, blocks])
        assert torch.equal(alone[:, :, blocks], together[:, :, blocks])
