"""The loop: requests come and go between steps, and one clip's failure is one clip's failure."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine import device
from musicgen_lab.engine.checkpoint import open_checkpoint
from musicgen_lab.engine.device import choose_slots, slot_bytes, weight_bytes
from musicgen_lab.engine.engine import Engine
from musicgen_lab.errors import InvalidRequest
from tests.engine.conftest import PROMPTS, sampled


@pytest.fixture
def engine(mono):
    return Engine.open(mono.folder, device="cpu", dtype="float32", slots=3)


def test_clips_come_as_they_finish_and_waiting_ones_take_their_slots(engine):
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
        engine.add(request)
    steps, done = 0, []
    while len(done) < len(requests):
        done += engine.step()
        steps += 1

    longest = max(engine.config.count_steps(request.duration) for request in requests)
    assert steps <= work / engine.slots + longest


def test_requests_are_taken_only_as_slots_become_free(engine):
    taken = []

    def ask():
        for seed in range(6):
            taken.append(seed)
            yield sampled(seed=seed)

    next(engine.generate(ask()))

    assert len(taken) == engine.slots


def test_the_time_of_a_step_is_shared_by_the_clips_in_it(engine):
    started_s = time.perf_counter()
    clips = list(engine.generate([sampled(seed=seed) for seed in range(3)]))
    passed_s = time.perf_counter() - started_s

    assert 0 < sum(clip.elapsed_s for clip in clips) <= passed_s


def test_progress_is_told_in_steps_and_ends_at_the_total(engine):
    seen = []
    engine.on_progress = seen.append

    list(engine.generate([sampled(seed=0), sampled(seed=1)]))

    assert seen[0] == 2
    assert sum(seen) == 106 == engine.steps_done == engine.steps_total


def test_a_cancelled_clip_never_comes_back_and_frees_its_slot(engine):
    kept = [engine.add(sampled(seed=seed)) for seed in range(3)]
    waiting = engine.add(sampled(seed=3))
    engine.step()
    engine.cancel(kept[1])
    engine.cancel(waiting)
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
    engine.add(sampled(PROMPTS[1], seed=0))
    engine.add(sampled(seed=1))
    done = engine.step()
    engine._slots.cache[:, :, 0, :, 0] = float("nan")  # the first clip's first keys and values
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


def test_a_clip_tells_who_made_it(engine):
    (clip,) = engine.generate([sampled()])

    assert clip.provenance.engine.startswith("musicgen-lab ")
    assert (clip.provenance.device, clip.provenance.dtype) == ("cpu", "float32")
    assert clip.provenance.details["slots"] == 3
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == (1, 32_000)
    assert clip.elapsed_s > 0


@pytest.mark.parametrize("slots", [0, -1, 1_000_000_000])
def test_slots_that_cannot_be_had_are_refused_before_work_starts(mono, slots):
    with pytest.raises(InvalidRequest, match="slots must be from 1 to"):
        Engine.open(mono.folder, device="cpu", slots=slots)


@pytest.mark.parametrize(("where", "spare"), [("cpu", 0), ("cuda", 0.5)])
def test_auto_takes_the_slots_that_fit_beside_the_weights(mono, monkeypatch, where, spare):
    config, checkpoint = open_checkpoint(mono.folder)
    options = (torch.device(where), torch.bfloat16)
    weights, clip = weight_bytes(checkpoint, *options), slot_bytes(config, *options)

    assert weights == 2 * config.parameters
    taken = weights + spare * clip
    for free, slots in [(taken + 2.9 * clip / 0.8, 2), (taken + 1.9 * clip / 0.8, 1)]:
        monkeypatch.setattr(device, "free_bytes", lambda _, free=free: int(free))
        assert choose_slots("auto", config, checkpoint, *options) == slots
    monkeypatch.setattr(device, "free_bytes", lambda _: weights)
    with pytest.raises(InvalidRequest, match=f"not one clip fits on {where}"):
        choose_slots("auto", config, checkpoint, *options)


@pytest.mark.parametrize(
    ("option", "value"), [("device", "abacus"), ("dtype", "int4"), ("dtype", "float16")]
)
def test_devices_and_precisions_that_there_are_not_are_refused(mono, option, value):
    with pytest.raises(InvalidRequest, match=value):
        Engine.open(mono.folder, **{"device": "cpu", option: value})


def test_generating_imports_no_audiocraft_and_the_package_no_torch(mono):
    script = f"""
import sys
import musicgen_lab, musicgen_lab.engine, musicgen_lab.engine.config
assert "torch" not in sys.modules
from pathlib import Path
from musicgen_lab.engine.convert import prepare
from musicgen_lab.engine.engine import Engine
from musicgen_lab.request import GenerationRequest
folder = prepare(Path({str(mono.checkpoint)!r}), Path({str(mono.folder.parent / "again")!r}))
engine = Engine.open(folder, device="cpu", slots=1)
(clip,) = engine.generate([GenerationRequest(prompt="x", duration=1.0, seed=0)])
assert clip.samples.std() > 0
assert "audiocraft" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_callers_random_state_is_untouched(engine):
    before = torch.get_rng_state()
    list(engine.generate([sampled()]))
    assert torch.equal(before, torch.get_rng_state())
