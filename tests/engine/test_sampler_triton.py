"""The sampling kernel for GPUs, without one: its tokens are the reference's, and it compiles."""

import itertools

import pytest
import torch

from musicgen_lab.engine.token_tables import draw_tokens
from tests.engine import interpreted
from tests.engine.sampling import SamplingCase

triton = pytest.importorskip("triton", reason="triton comes with torch on Linux only")

# Softmax may differ in its last bits, which decides where a uniform number, or top_p, hits the
# border between two tokens: once in some hundred thousand.
EQUAL_SHARE = 0.999
LATTICE = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p, "cfg_coef": cfg_coef}
    for (temperature, top_k, top_p), cfg_coef in zip(
        itertools.product([0.0, 0.05, 0.7, 1.0, 2.0], [0, 1, 5, 199, 250], [0.0, 0.1, 0.9, 1.0]),
        itertools.cycle([0.0, 1.0, 3.0]),
        strict=False,
    )
]


def logits_of(rows, card=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, 4, card, generator=generator)
    logits[:, 1] = logits[:, 1].round()  # many ties
    return logits


@pytest.fixture
def draw_as_gpus_do(interpret):
    """Sampling of several cases in triton's interpreter."""
    return lambda cases: interpret(interpreted.sample, cases)


def test_its_tokens_are_the_references_for_all_parameters(draw_as_gpus_do):
    cases = [
        SamplingCase(lattice, logits_of(2 * len(lattice), card, seed), seed)
        for seed, (card, lattice) in enumerate([(200, LATTICE), (256, LATTICE[::7])])
    ]

    drawn = draw_as_gpus_do(cases)

    same = []
    for case, (tokens, table, finite) in zip(cases, drawn, strict=True):
        logits, batch, tables = case.tensors()
        expected = draw_tokens(logits, batch, tables)
        same.append(tokens == expected)
        assert torch.equal(table[:-1, 6], tokens)  # written at the next position of each slot
        table[:-1, 6] = tables.tokens[:-1, 6]
        assert torch.equal(table, tables.tokens)  # and nowhere else
        assert finite.all()
    assert torch.cat(same).double().mean() >= EQUAL_SHARE


def test_the_tokens_of_two_mixed_prompts_are_the_references(draw_as_gpus_do):
    requests = [
        {**fields, "prompt_b": "y", "mix": mix}
        for fields, mix in zip(LATTICE[::7], itertools.cycle([0.0, 0.3, 0.9, 1.0]), strict=False)
    ]
    case = SamplingCase(requests, logits_of(3 * len(requests)))

    ((tokens, *_),) = draw_as_gpus_do([case])

    assert torch.equal(tokens, draw_tokens(*case.tensors()))


@pytest.mark.parametrize("steps_done", [0, 2, 50, 52])
def test_codebooks_without_a_code_get_the_special_token(draw_as_gpus_do, steps_done):
    case = SamplingCase(LATTICE[:3], logits_of(6), steps_done=steps_done)

    ((tokens, *_),) = draw_as_gpus_do([case])

    assert torch.equal(tokens == 200, draw_tokens(*case.tensors()) == 200)
    assert (tokens == 200).any()


def test_a_clip_that_is_not_finite_is_seen_and_harms_no_other(draw_as_gpus_do):
    requests = [{"temperature": t, "top_p": p} for t, p in [(1.0, 0.0), (1.0, 0.9), (0.0, 0.0)]]
    case = SamplingCase(requests, logits_of(6))
    broken = SamplingCase(requests, case.logits.clone())
    broken.logits[0, 2, 7] = float("nan")  # a row of the first clip

    (expected, *_), (tokens, _, finite) = draw_as_gpus_do([case, broken])

    assert finite.tolist() == [False, True, True, True]
    assert torch.equal(tokens[1:], expected[1:])
    assert (tokens < 200).all()


@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("capability", [80, 86, 90])  # A100; A10, A40; H100, H200
def test_it_compiles_for_gpus_that_are_not_here(capability, mixing, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from musicgen_lab.engine.delay import UNKNOWN
    from musicgen_lab.engine.kernels.sampler import HIGHEST_BIT, WARPS, draw_clip

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    types = {
        "logits": "*fp32",
        "temperatures": "*fp32",
        "top_ps": "*fp32",
        "cfg_coefs": "*fp32",
        "shares": "*fp32",
        "uniforms": "*fp64",
        "finite": "*i1",
        **dict.fromkeys(("card", "slot_stride"), "i32"),
    }
    constants = {"CARD": 2048, "HIGHEST": HIGHEST_BIT, "UNKNOWN": UNKNOWN}
    if not mixing:
        constants |= {"rows_mixed": None, "shares": None}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=draw_clip,
        signature={name: types.get(name, "*i64") for name in draw_clip.arg_names},
        constexprs=constants,
    )

    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": WARPS}
    )

    assert len(compiled.asm["cubin"]) > 1000
