"""The estimated time and cost of a sweep on Modal, and what is refused, before it is run."""

import math
from dataclasses import replace

import pytest

from musicgen_lab.backends.estimates import BANDWIDTH_SHARE, START_S
from musicgen_lab.backends.modal import ModalBackend
from musicgen_lab.backends.prices import PRICES_DATE, USD_PER_S, Prices
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.request import GenerationRequest
from musicgen_lab.sweep import Sweep
from service.deployment import MUSICGEN_LARGE
from tests.support.sines import sine_clip

ABOUT = {
    "format": 1, "models": [MUSICGEN_LARGE], "gpu": ["A10", "A100"],
    "clips_at_once": {MUSICGEN_LARGE: {"A10": 12, "A100": 24}},
    "containers_max": 4, "scaledown_window_s": 120, "cores": 2, "memory_gib": 16,
}  # fmt: skip
BESIDE_USD_PER_S = 2 * USD_PER_S["CPU"] + 16 * USD_PER_S["memory"]


def requests(backend, count):
    return [
        backend.resolve(GenerationRequest(prompt="x", duration=8, seed=seed))
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("device", "name"),
    [("A10", "A10"), ("A10G", "A10"), ("A100", "A100-40GB"), ("cuda (NVIDIA A10G)", "A10"),
     ("cuda (NVIDIA A10)", "A10"), ("cuda (NVIDIA A100-SXM4-40GB)", "A100-40GB"),
     ("cuda (NVIDIA A100-SXM4-80GB)", "A100-80GB"), ("cuda (NVIDIA H100 80GB HBM3)", "H100"),
     ("cuda (NVIDIA L40S)", "L40S"), ("cpu", "CPU"), ("cuda (NVIDIA GTX 970)", None)],
)  # fmt: skip
def test_a_device_is_found_in_the_price_list_however_it_is_called(device, name):
    assert Prices.with_own().find(device) == name


def test_twelve_clips_are_estimated_from_the_weights_that_every_step_reads():
    backend = ModalBackend(about=ABOUT)
    cost = backend.estimate_cost(requests(backend, 12))
    steps_s = 8 * 50 * 6.6e9 / (0.6e12 * BANDWIDTH_SHARE)
    assert cost.gpu == "A10" and PRICES_DATE in str(cost)
    assert cost.gpu_s == pytest.approx(steps_s + START_S + 120)


def test_the_containers_cores_and_memory_are_included_in_the_cost():
    backend = ModalBackend(about=ABOUT)
    cost = backend.estimate_cost(requests(backend, 12))
    assert cost.usd == pytest.approx(cost.gpu_s * (USD_PER_S["A10"] + BESIDE_USD_PER_S))
    on_cpu = ModalBackend(
        about={**ABOUT, "gpu": [], "clips_at_once": {MUSICGEN_LARGE: {"CPU": 8}}}
    ).estimate_cost(requests(backend, 12))
    assert on_cpu.usd == pytest.approx(on_cpu.gpu_s * BESIDE_USD_PER_S)


def test_the_plan_says_what_the_other_gpu_costs_where_the_first_is_not_free():
    backend = ModalBackend(about=ABOUT)
    cost = backend.estimate_cost(requests(backend, 12))
    (other,) = cost.otherwise
    assert other.gpu == "A100-40GB" and other.gpu_s < cost.gpu_s
    assert other.usd == pytest.approx(other.gpu_s * (USD_PER_S["A100-40GB"] + BESIDE_USD_PER_S))
    assert "of A100-40GB" in str(cost) and "where no A10 is free" in str(cost)


@pytest.mark.parametrize(
    ("device", "gpu"),
    [("cuda (NVIDIA A10G)", "A10"), ("cuda (NVIDIA A100-SXM4-40GB)", "A100-40GB")],
)
def test_a_clip_costs_what_the_gpu_that_made_it_costs(device, gpu):
    backend = ModalBackend(about=ABOUT)
    clip = sine_clip(requests(backend, 1)[0])
    clip = replace(clip, provenance=replace(clip.provenance, device=device), elapsed_s=2.0)
    details = backend.add_cost(clip).provenance.details
    assert (details["gpu"], details["gpu_s"]) == (gpu, 2.0)
    assert details["cost_usd"] == pytest.approx(2 * (USD_PER_S[gpu] + BESIDE_USD_PER_S))


def test_a_users_own_prices_replace_those_that_they_name():
    backend = ModalBackend(about=ABOUT, prices={"A10G": 1.0, "memory": 0})
    cost = backend.estimate_cost(requests(backend, 12))
    assert cost.usd == pytest.approx(cost.gpu_s * (1.0 + 2 * USD_PER_S["CPU"]))
    assert "your own prices" in str(cost)


@pytest.mark.parametrize("usd", [-1, math.nan, "cheap"])
def test_a_price_that_is_none_is_refused_by_name(usd):
    with pytest.raises(InvalidRequest, match="price of 'A10' must be dollars per second"):
        ModalBackend(about=ABOUT, prices={"A10": usd})


def test_nothing_to_make_costs_nothing():
    backend = ModalBackend(about=ABOUT)
    assert backend.estimate_cost([]).usd == 0 and backend.estimate_s([]) == 0


def test_a_top_k_that_the_deployed_model_ignores_is_refused_where_its_codebooks_are_known(
    monkeypatch,
):
    monkeypatch.setattr(ModalBackend, "read_prompts", lambda *_: None)  # Modal cannot be asked here
    sweep = Sweep(prompt="x", top_k=[250, 1500])
    assert sweep.plan(ModalBackend(about=ABOUT)).clips == 2
    backend = ModalBackend(about={**ABOUT, "codebook_sizes": {MUSICGEN_LARGE: 1024}})
    with pytest.raises(InvalidRequest, match="top_k 1,500 allows all of the model's 1,024 tokens"):
        sweep.plan(backend)
