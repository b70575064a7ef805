"""The loop: requests come and go between steps, and one clip's failure is one clip's failure."""

import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine import decode_state, device
from musicgen_lab.engine.capacity import BESIDE_BYTES, CACHE_SHARE, block_bytes, weight_bytes
from musicgen_lab.engine.device import choose_capacity
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import InvalidRequest
from tests.support.cases import PROMPTS, codes_source, sampled, tokens_of


@pytest.fixture
def engine(mono):
    return Engine.open(mono.folder, EngineOptions("cpu", "float32", 3))


def test_clips_are_returned_as_they_finish_and_waiting_ones_take_their_slots(engine):
    requests = [sampled(duration=d, seed=i) for i, d in enumerate([2.0, 1.0, 1.5, 1.0, 1.0])]

    clips = list(engine.generate(requests))

    assert clips[0].request.seed == 1
    assert {clip.request.seed: clip.duration_s for clip in clips} == {
        0: 2.0,
        1: 1.0,
        2: 1.5,
        3: 1.0,
        4: 1.0,
    }


def test_mixed_durations_cost_no_more_steps_than_full_slots_need(engine):
    requests = [sampled(duration=1.0 + 0.4 * (i % 4), seed=i) for i in range(12)]
    work = sum(engine.config.count_steps(request.duration) for request in requests)
    for request in requests:
        engine.add_request(request)
    steps, done = 0, []
    while len(done) < len(requests):
        done += engine.step()
        steps += 1

    longest = max(engine.config.count_steps(request.duration) for request in requests)
    assert steps <= work / engine.max_clips + longest


def test_requests_are_taken_only_as_slots_become_free(engine):
    taken = []

    def ask():
        for seed in range(6):
            taken.append(seed)
            yield sampled(seed=seed)

    next(engine.generate(ask()))

    assert len(taken) == engine.max_clips + 1  # the one ahead tells that more are to come


@pytest.mark.parametrize("clips", [3, 20])
def test_of_many_equal_clips_some_are_finished_when_a_sixth_of_the_sound_is_made(engine, clips):
    """As when Ctrl-C stops a sweep; those that fit the slots at once lose no time by it."""
    requests = [sampled(seed=seed) for seed in range(clips)]
    steps, finished_at = [], []
    engine.on_progress = steps.append
    for _ in engine.generate(requests):
        finished_at.append(sum(steps))
        if len(finished_at) == 3:
            break
    in_all = clips * engine.count_steps(requests[0])
    if clips == 3:
        assert finished_at == [in_all] * 3
    else:
        assert finished_at[0] < in_all * 30 / 200
        assert finished_at[0] < finished_at[1] < finished_at[2]


def test_equal_clips_with_long_prefill_finish_one_after_another_too(engine, monkeypatch):
    given = codes_source(engine, tokens_of(engine, sampled(seed=9))[:, :25])
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", 1)
    requests = [sampled(seed=seed, begin_with=given) for seed in range(20)]
    steps, finished_at = [], []
    engine.on_progress = steps.append

    for _ in itertools.islice(engine.generate(requests), 3):
        finished_at.append(len(steps))

    assert finished_at[0] < finished_at[1] < finished_at[2]


def test_the_time_of_a_step_is_shared_by_the_clips_in_it(engine):
    started_s = time.perf_counter()
    clips = list(engine.generate([sampled(seed=seed) for seed in range(3)]))
    passed_s = time.perf_counter() - started_s

    assert 0 < sum(clip.elapsed_s for clip in clips) <= passed_s


def test_progress_is_reported_in_steps_and_ends_at_the_total(engine):
    seen = []
    engine.on_progress = seen.append

    list(engine.generate([sampled(seed=0), sampled(seed=1)]))

    assert seen[0] == 2
    assert sum(seen) == 106 == engine.steps_done == engine.steps_total


def test_a_cancelled_clip_never_comes_back_and_frees_its_slot(engine):
    kept = [engine.add_request(sampled(seed=seed)) for seed in range(3)]
    waiting = engine.add_request(sampled(seed=3))
    engine.step()
    engine.abort(kept[1])
    engine.abort(waiting)
    done = []
    while len(done) < 2:
        done += engine.step()

    assert {clip.request.seed for clip in done} == {0, 2}
    assert engine.step() == []
    assert engine.steps_done == engine.steps_total


def test_threads_share_the_batch_and_each_gets_its_own_clips(engine):
    alone = {s: next(iter(engine.generate([sampled(seed=s)]))).samples for s in range(4)}
    results: dict[int, list[Clip | Failure]] = {}

    def ask(seed):
        results[seed] = list(engine.generate([sampled(seed=seed)]))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for seed in range(4):
        (clip,) = results[seed]
        assert clip.request.seed == seed
        assert np.array_equal(clip.samples, alone[seed])


def test_a_row_that_is_not_finite_fails_alone(engine):
    (expected,) = engine.generate([sampled(seed=1)])
    engine.add_request(sampled(PROMPTS[1], seed=0))
    engine.add_request(sampled(seed=1))
    done = engine.step()
    block = engine._scheduler.running[0].rows[0].blocks[0]
    engine._cache.tensor[:, :, block, :, 0] = float("nan")  # its first keys and values
    while len(done) < 2:
        done += engine.step()

    failure, clip = sorted(done, key=lambda result: result.request.seed)
    assert isinstance(failure, Failure)
    assert failure.error_type == "ArithmeticError"
    assert np.array_equal(clip.samples, expected.samples)


def test_a_prompt_that_cannot_be_encoded_fails_alone(engine):
    broken = sampled().model_copy(update={"prompt": None})

    results = list(engine.generate([sampled(seed=1), broken, sampled(seed=2)]))

    assert sorted(type(result).__name__ for result in results) == ["Clip", "Clip", "Failure"]
    assert engine.steps_done == engine.steps_total


def test_a_clip_has_its_provenance(engine):
    (clip,) = engine.generate([sampled()])

    assert clip.provenance.engine.startswith("musicgen-lab ")
    assert (clip.provenance.device, clip.provenance.dtype) == ("cpu", "float32")
    assert clip.provenance.details["max_clips"] == 3
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == (1, 32_000)
    assert clip.elapsed_s > 0


@pytest.mark.parametrize("max_clips", [0, -1, 1_000_000_000, "many"])
def test_more_clips_at_once_than_fit_are_refused_before_work_starts(mono, max_clips):
    with pytest.raises(InvalidRequest, match="max_clips must be"):
        Engine.open(mono.folder, EngineOptions("cpu", max_clips=max_clips))


def test_clips_wait_for_memory_in_the_order_they_came_and_never_fail_for_it(mono):
    scarce = Engine.open(mono.folder, EngineOptions("cpu", "float32", 3))
    two_rows = scarce.capacity.clip_blocks(1.0)
    scarce._cache.take((scarce.capacity.blocks - 2 * two_rows) * scarce.capacity.block_len)
    durations = [1.0, 1.0, 2.0, 1.0]
    for seed, duration in enumerate(durations):
        scarce.add_request(sampled(PROMPTS[seed % 3], duration=duration, seed=seed))

    running, done = [], []
    while len(done) < len(durations):
        done += scarce.step()
        running.append(len(scarce._scheduler.running))

    assert max(running) == 2  # a third slot is free, but no blocks
    assert [type(result) for result in done] == [Clip] * 4
    assert [clip.request.seed for clip in done] == [0, 1, 3, 2]
    assert scarce._cache.free_blocks == 2 * two_rows


def test_rows_with_the_same_prompt_share_its_blocks(engine):
    before = engine._cache.free_blocks
    for seed in range(3):
        engine.add_request(sampled(seed=seed))
    engine.step()

    shared = {tuple(clip.rows[0].text_blocks) for clip in engine._scheduler.running}
    assert len(shared) == 1
    assert before - engine._cache.free_blocks == 3 * 2 + 1


def test_a_clip_with_one_row_takes_the_blocks_of_one_row(engine):
    before = engine._cache.free_blocks
    engine.add_request(sampled(cfg_coef=0.0))
    engine.step()

    assert before - engine._cache.free_blocks == 1


def test_a_prompt_with_too_many_tokens_is_refused_and_says_the_limit(engine):
    request = sampled("guitar").model_copy(update={"prompt": "x " * 2000})

    (failure,) = engine.generate([request])

    assert failure.error_type == "InvalidRequest"
    assert "prompt must have at most 1,503 tokens, got" in failure.message


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_slots_follow_the_memory_beside_the_weights(mono, monkeypatch, where):
    config, place = mono.engine.config, torch.device(where)
    on_gpu = where == "cuda"
    taken, share = (BESIDE_BYTES, CACHE_SHARE) if on_gpu else (0, 0.8)
    dtype_bytes, block_len = (2, 64) if on_gpu else (4, 512)
    block = block_bytes(config, dtype_bytes, block_len)

    def with_blocks(blocks, max_clips):
        free = weight_bytes(config, 2) + taken + (blocks + 0.5) * block / share
        monkeypatch.setattr(device, "free_bytes", lambda _: int(free))
        return choose_capacity(max_clips, config, place, torch.bfloat16)

    longest, shortest = (72, 3) if on_gpu else (9, 3)
    assert with_blocks(longest, "auto").max_clips == longest // shortest
    assert with_blocks(longest, "auto").blocks == longest
    assert with_blocks(10_000, "auto").max_clips == (64 if on_gpu else 32)
    assert with_blocks(10_000, 100).max_clips == 100
    with pytest.raises(
        InvalidRequest, match=f"max_clips must be from 1 to {longest // shortest} on"
    ):
        with_blocks(longest, 100)
    with pytest.raises(InvalidRequest, match=f"not one clip fits on {where}"):
        with_blocks(longest - 1, "auto")


@pytest.mark.parametrize(
    ("option", "value"), [("device", "abacus"), ("dtype", "int4"), ("dtype", "float16")]
)
def test_devices_and_precisions_that_there_are_not_are_refused(mono, option, value):
    with pytest.raises(InvalidRequest, match=value):
        Engine.open(mono.folder, EngineOptions(**{"device": "cpu", option: value}))


def test_generating_imports_no_audiocraft_and_the_package_no_torch(mono):
    script = f"""
import sys
import musicgen_lab, musicgen_lab.engine, musicgen_lab.models.config
assert "torch" not in sys.modules
from pathlib import Path
from musicgen_lab.conversion.convert import convert
from musicgen_lab.engine.engine import Engine, EngineOptions
from musicgen_lab.request import GenerationRequest
folder = convert(Path({str(mono.checkpoint)!r}), Path({str(mono.folder.parent / "again")!r}))
engine = Engine.open(folder, EngineOptions("cpu", max_clips=1))
(clip,) = engine.generate([GenerationRequest(prompt="x", duration=1.0, seed=0)])
assert clip.samples.std() > 0
assert "audiocraft" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_callers_random_state_is_untouched(engine):
    before = torch.get_rng_state()
    list(engine.generate([sampled()]))
    assert torch.equal(before, torch.get_rng_state())


def test_the_stream_of_a_request_that_cannot_start_is_forgotten(engine, monkeypatch):
    monkeypatch.setattr(engine._state, "start", lambda _: 1 / 0)
    engine.add_request(sampled(), lambda _: None)

    (failure,) = engine.step()

    assert isinstance(failure, Failure) and not engine._streams._streams


@pytest.mark.parametrize("step", ["_prompts.count_tokens", "_cache.write"])
def test_a_prompt_that_fails_at_any_step_leaves_no_blocks_behind(engine, monkeypatch, step):
    owner, method = step.split(".")
    free, calls = engine._cache.free_blocks, itertools.count()
    target = getattr(engine._scheduler, owner)
    whole = getattr(target, method)

    def fail_in_the_end(*given):
        if method == "write" or next(calls):
            raise MemoryError("no room")
        return whole(*given)

    monkeypatch.setattr(target, method, fail_in_the_end)
    (failure,) = engine.generate([sampled()])

    assert failure.message == "no room" and engine._cache.free_blocks == free
