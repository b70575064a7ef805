"""The kernel of attention for NVIDIA's GPUs, without one: its numbers, and that it compiles.

triton's interpreter runs it on the CPU, and its compiler makes machine code for GPUs that are not
there.
"""

import subprocess
import sys

import pytest
import torch

from musicgen_lab.engine.attention import attend
from tests.engine.test_attention import BLOCK_LEN, BLOCK_TABLES, CONTEXT_LENS, drawn, spans_of

triton = pytest.importorskip("triton", reason="triton comes with torch on Linux only")


@pytest.fixture(scope="module")
def attend_as_gpus_do(tmp_path_factory):
    """Attention over several cases in triton's interpreter."""

    def attended(cases):
        folder = tmp_path_factory.mktemp("interpreted")
        torch.save(cases, folder / "cases.pt")
        command = [sys.executable, "-m", "tests.engine.interpreted"]
        subprocess.run([*command, folder / "cases.pt", folder / "results.pt"], check=True)
        return torch.load(folder / "results.pt", weights_only=True)

    return attended


@pytest.mark.parametrize("kinds", [1, 3])
def test_it_computes_what_the_kernel_of_the_cpu_does(attend_as_gpus_do, kinds):
    cases = []
    for size in (16, 40, 64):  # 40 is no power of two, as the head of some models
        qkv, cache = drawn(5, kinds, 4, size), drawn(2, 10, 4, BLOCK_LEN, size, seed=1)
        cache[:, BLOCK_TABLES[0][0], :, CONTEXT_LENS[0] :] = float("nan")  # what lies beyond
        cases.append((qkv, cache, torch.tensor(BLOCK_TABLES), torch.tensor(CONTEXT_LENS)))

    for case, (result, written) in zip(cases, attend_as_gpus_do(cases), strict=True):
        qkv, cache, *_ = case
        assert torch.allclose(result, attend(qkv, cache, spans_of()), atol=1e-6)
        assert torch.equal(written.nan_to_num(), cache.nan_to_num())


def test_16_bits_are_computed_in_float32(attend_as_gpus_do):
    spans = (torch.tensor(BLOCK_TABLES), torch.tensor(CONTEXT_LENS))
    qkv, cache = drawn(5, 3, 4, 64), drawn(2, 10, 4, BLOCK_LEN, 64, seed=1)
    cases = [(qkv.to(dtype), cache.to(dtype), *spans) for dtype in (torch.bfloat16, torch.half)]

    for case, (result, _) in zip(cases, attend_as_gpus_do(cases), strict=True):
        assert result.dtype == case[0].dtype
        expected = attend(case[0].float(), case[1].float(), spans_of())
        eps = torch.finfo(result.dtype).eps
        assert torch.allclose(result.float(), expected, rtol=eps, atol=1e-6)


def test_no_keys_give_zeros_and_what_is_not_finite_stays_in_its_row(attend_as_gpus_do):
    queries, cache = drawn(5, 1, 4, 64), drawn(2, 10, 4, BLOCK_LEN, 64, seed=1)
    cache[:, BLOCK_TABLES[1][0], :, 5] = float("inf")
    spans = spans_of(context_lens=[*CONTEXT_LENS[:4], 0])

    case = (queries, cache, spans.block_tables, spans.context_lens)
    ((result, _),) = attend_as_gpus_do([case])

    assert torch.equal(result[4], torch.zeros_like(result[4]))
    assert not result[1].isfinite().any()
    assert result[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("kinds", [1, 3])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("capability", [80, 90])  # A10, A100, L4, L40S; H100, H200
def test_it_compiles_for_gpus_that_are_not_here(dtype, capability, kinds, tmp_path, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from musicgen_lab.engine.attention_cuda import KEYS_AT_ONCE, attend_rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = dict.fromkeys(("asked", "keys", "values", "attended"), f"*{dtype}")
    numbers = dict.fromkeys(("block_tables", "context_lens"), "*i64") | {"scale": "fp32"}
    strides = dict.fromkeys(
        ("size", "block_stride", "head_stride", "table_stride", "block_len"), "i32"
    )
    constants = {"KINDS": kinds, "SIZE": 64, "KEYS": KEYS_AT_ONCE}
    signature = tensors | numbers | strides | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        fn=attend_rows,
        signature={name: signature[name] for name in attend_rows.arg_names},
        constexprs=constants,
    )

    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))

    assert len(compiled.asm["cubin"]) > 1000
