"""What a sweep on Modal is said to take and cost, before it is run."""

import pytest

from musicgen_lab.backends.modal import BANDWIDTH_SHARE, START_S, ModalBackend
from musicgen_lab.backends.prices import PRICES_DATE, USD_PER_S, name_in_prices
from musicgen_lab.request import GenerationRequest
from service.deployment import MUSICGEN_LARGE

ABOUT = {
    "format": 1, "models": [MUSICGEN_LARGE], "gpu": ["A10", "A100"], "clips_at_once": 12,
    "containers_max": 4, "scaledown_window_s": 120,
}  # fmt: skip


def requests(backend, count):
    return [
        backend.resolve(GenerationRequest(prompt="x", duration=8, seed=seed))
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("device", "name"),
    [("A10", "A10"), ("A10G", "A10"), ("A100", "A100-40GB"), ("cuda (NVIDIA A10G)", "A10"),
     ("cuda (NVIDIA A100-SXM4-80GB)", "A100-80GB"), ("cuda (NVIDIA H100 80GB HBM3)", "H100"),
     ("cuda (NVIDIA L40S)", "L40S"), ("cpu", "CPU"), ("cuda (NVIDIA GTX 970)", None)],
)  # fmt: skip
def test_a_device_is_found_in_the_price_list_however_it_is_called(device, name):
    assert name_in_prices(device) == name


def test_twelve_clips_are_estimated_from_the_weights_that_every_step_reads():
    backend = ModalBackend(about=ABOUT)
    cost = backend.estimate_cost(requests(backend, 12))
    steps_s = 8 * 50 * 6.6e9 / (0.6e12 * BANDWIDTH_SHARE)
    assert cost.gpu == "A10" and cost.priced_at == PRICES_DATE
    assert cost.gpu_s == pytest.approx(steps_s + START_S + 120)
    assert cost.usd == pytest.approx(cost.gpu_s * USD_PER_S["A10"])


def test_a_users_own_prices_replace_the_list():
    backend = ModalBackend(about=ABOUT, prices={"A10": 1.0})
    cost = backend.estimate_cost(requests(backend, 12))
    assert cost.usd == pytest.approx(cost.gpu_s) and cost.priced_at == "your own prices"


def test_nothing_to_make_costs_nothing():
    backend = ModalBackend(about=ABOUT)
    assert backend.estimate_cost([]).usd == 0 and backend.estimate_s([]) == 0
