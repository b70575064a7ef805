"""How many clips a memory holds, counted without torch and without weights."""

import itertools
import subprocess
import sys

from musicgen_lab.backends.gpus import GPUS
from musicgen_lab.engine.capacity import (
    AUTO_CLIPS_MAX_GPU,
    block_bytes,
    plan_capacity,
    weight_bytes,
)
from musicgen_lab.models.released import released_config
from tests.support.capacity import capacity_on_gpu

LARGE = released_config("large")


def test_at_least_25_clips_of_8_s_of_large_fit_on_a_gpu_of_24_gb():
    for gpu in ("A10", "L4"):
        assert capacity_on_gpu(LARGE, GPUS[gpu].memory_bytes).clips(8.0) >= 25


def test_clips_of_30_s_of_every_released_model_fit_on_a_gpu_of_24_gb():
    for size, stereo in itertools.product(("small", "medium", "large"), (False, True)):
        config = released_config(size, stereo=stereo)
        assert capacity_on_gpu(config, GPUS["A10"].memory_bytes).clips(30.0) >= 8


def test_a_model_that_does_not_fit_has_a_capacity_of_no_clips():
    assert capacity_on_gpu(LARGE, weight_bytes(LARGE, 2)).max_clips == 0


def test_blocks_hold_the_keys_and_values_of_both_rows_and_of_the_prompt():
    capacity = plan_capacity(LARGE, 10**12, dtype_bytes=2, block_len=64)

    assert LARGE.count_steps(8.0) == 403
    assert capacity.clip_blocks(8.0, prompt_tokens=20) == 2 * 7 + 1
    assert block_bytes(LARGE, 2, 64) == 64 * 48 * 2 * 2048 * 2


def test_no_more_is_taken_than_the_longest_clips_need():
    capacity = plan_capacity(LARGE, 10**12, dtype_bytes=2)

    assert capacity.max_clips == AUTO_CLIPS_MAX_GPU
    assert capacity.clips(30.0) == AUTO_CLIPS_MAX_GPU
    assert capacity.blocks == AUTO_CLIPS_MAX_GPU * capacity.clip_blocks(30.0)


def test_memory_for_few_long_clips_is_shared_by_more_short_ones():
    blocks = 2 * (2 * 24 + 1)

    capacity = plan_capacity(LARGE, blocks * block_bytes(LARGE, 2, 64), dtype_bytes=2)

    assert capacity.clips(30.0) == 2
    assert capacity.clips(8.0) == blocks // 15 == 6


def test_one_clip_of_any_length_and_prompt_must_fit():
    needed = (2 * 24 + 24) * block_bytes(LARGE, 2, 64)

    assert plan_capacity(LARGE, needed, dtype_bytes=2).max_clips > 0
    assert plan_capacity(LARGE, needed - 1, dtype_bytes=2).max_clips == 0
    assert plan_capacity(LARGE, 10 * needed, dtype_bytes=2, max_clips=1).blocks == 75


def test_counting_needs_no_torch():
    program = (
        "import sys, musicgen_lab.engine.capacity, musicgen_lab.models.released; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_clip_longer_than_a_window_takes_the_memory_of_one():
    capacity = plan_capacity(LARGE, 10**12, dtype_bytes=2)

    assert capacity.clip_blocks(300.0) == capacity.clip_blocks(LARGE.window_s)


def test_one_clip_of_two_prompts_and_a_negative_one_fits_wherever_memory_allows():
    capacity = plan_capacity(LARGE, 10**12, dtype_bytes=2, max_clips=1)

    assert capacity.max_rows == 3
    assert capacity.blocks >= 3 * (24 + 1)
