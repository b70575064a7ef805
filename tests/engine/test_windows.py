"""Clips that begin with given codes, and clips that are made in several windows.

The models here have windows of 1.2 s, which extend by 1 s, so that long clips are cheap to make.
"""

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip, Failure
from musicgen_lab.engine import decode_state
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.windows import Window, plan_windows
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.models.released import released_config
from musicgen_lab.source import Source, SourceCodes
from musicgen_lab.streaming import SoundChunk
from tests.support.cases import (
    PROMPTS,
    codes_source,
    greedy,
    sampled,
    tokens_of,
)
from tests.support.reference import needs_audiocraft
from tests.support.sounds import noise, sine
from tests.support.sources import sound_file

LONG_S = 2.75  # three windows: 0 to 1.2, 1.0 to 2.2, 2.0 to 2.75 s
FIELDS = {"duration": LONG_S, "extend_stride": 1.0}


@pytest.fixture(scope="module", params=["mono", "stereo", "deep"])
def short(request, make_short):
    return make_short(request.param)


@pytest.fixture(scope="module")
def mono_short(make_short):
    return make_short("mono")


@pytest.fixture(scope="module")
def given(short):
    """A source of 0.5 s of another clip's codes."""
    return codes_source(short.engine, tokens_of(short.engine, sampled(PROMPTS[2], seed=9))[:, :25])


@needs_audiocraft
def test_a_clip_of_several_windows_is_audiocrafts_extended_generation(short):
    request = greedy(**FIELDS)

    ours = tokens_of(short.engine, request)

    assert torch.equal(ours, short.reference.generate_tokens(request)[0])


@needs_audiocraft
@pytest.mark.parametrize("duration", [1.0, LONG_S])
def test_a_clip_that_begins_with_codes_is_audiocrafts_continuation(short, given, duration):
    request = greedy(begin_with=given, duration=duration, extend_stride=1.0)
    company = [greedy(PROMPTS[1], **FIELDS), sampled(PROMPTS[2], seed=1, duration=1.5)]

    clips = {c.request.key(): c for c in short.engine.generate([*company, request])}

    ours = torch.from_numpy(clips[request.key()].codes.astype(np.int64))
    assert torch.equal(ours[:, :25], torch.from_numpy(given.codes().codes.astype(np.int64)))
    assert torch.equal(ours, short.reference.generate_tokens(request)[0])


SMALL = released_config("small")


def test_windows_begin_a_stride_apart_with_what_the_one_before_has_made():
    request = sampled(duration=60, extend_stride=18)

    assert plan_windows(SMALL, request) == [
        Window(first=0, frames=1500, given=0, start=0, end=1503),
        Window(first=900, frames=1500, given=600, start=600, end=1503),
        Window(first=1800, frames=1200, given=600, start=600, end=1203),
    ]


def test_windows_of_given_frames_alone_are_left_out():
    windows = plan_windows(SMALL, sampled(duration=60), given=1500)

    assert windows == plan_windows(SMALL, sampled(duration=60))[1:]


@pytest.mark.parametrize("duration", [30.02, 47.3, 299.98, 300])
@pytest.mark.parametrize("stride", [1, 17.7, 29])
@pytest.mark.parametrize("given", [0, 7, 1499])
def test_every_frame_is_sampled_in_one_window(duration, stride, given):
    request = sampled(duration=duration, extend_stride=stride)

    windows = plan_windows(SMALL, request, given)

    made = [f for w in windows for f in range(w.first + w.given, w.first + w.frames)]
    assert made == list(range(given, int(duration * 50)))
    assert all(window.frames <= 1500 for window in windows)


@pytest.mark.parametrize(
    ("fields", "given", "field"),
    [
        ({"duration": 2}, 100, "duration"),
        ({"duration": 2, "extend_stride": 1.2}, 0, "extend_stride"),
    ],
)
def test_a_clip_without_anything_to_make_or_with_too_long_a_stride_is_refused(
    mono_short, fields, given, field
):
    with pytest.raises(InvalidRequest, match=field) as caught:
        plan_windows(mono_short.engine.config, sampled(**fields), given)

    assert caught.value.field == field


@pytest.fixture(scope="module")
def source(mono_short):
    """0.5 s of a clip's codes."""
    return codes_source(mono_short.engine, tokens_of(mono_short.engine, sampled(seed=9))[:, :25])


@pytest.fixture(scope="module")
def mixed_bag(source):
    """Clips of every kind."""
    return [
        sampled(seed=0, **FIELDS),
        sampled(PROMPTS[1], seed=1, begin_with=source, temperature=0.7),
        sampled(seed=2, begin_with=source, **FIELDS),
        sampled(seed=3, prompt_b=PROMPTS[1], mix=0.4, **FIELDS),
        sampled(seed=4, negative_prompt=PROMPTS[2]),
        sampled(PROMPTS[2], seed=5, cfg_coef=0, negative_prompt=PROMPTS[1]),
        sampled(PROMPTS[2], seed=6, cfg_coef=1, prompt_b=PROMPTS[0], mix=0.5, begin_with=source),
        sampled(seed=7),
    ]


def by_seed(clips):
    return {clip.request.seed: clip for clip in clips}


@pytest.fixture(scope="module")
def alone(mono_short, mixed_bag):
    return by_seed(clip for request in mixed_bag for clip in mono_short.engine.generate([request]))


def assert_same(clips, expected):
    for seed, clip in clips.items():
        assert np.array_equal(clip.codes, expected[seed].codes)
        assert np.array_equal(clip.samples, expected[seed].samples)


def test_clips_are_the_same_in_company_and_in_any_order(mono_short, mixed_bag, alone):
    together = by_seed(mono_short.engine.generate(mixed_bag[::-1]))

    assert len(together) == len(mixed_bag)
    assert_same(together, alone)


def test_clips_are_the_same_joining_late(mono_short, mixed_bag, alone):
    engine, done = mono_short.engine, []
    for request in mixed_bag:
        engine.add_request(request)
        for _ in range(23):
            done += engine.step()
    while len(done) < len(mixed_bag):
        done += engine.step()

    assert_same(by_seed(done), alone)


def test_a_long_clip_begins_with_the_clip_of_one_window(mono_short, alone):
    """Bit for bit in its codes; the codec hears some frames ahead, and adds up in another order."""
    (short,) = mono_short.engine.generate([sampled(seed=0, duration=1.2)])

    long, end = alone[0], short.samples.shape[1]
    assert np.array_equal(long.codes[:, :60], short.codes)
    heard = end - 10 * 640
    assert np.abs(long.samples[:, :heard] - short.samples[:, :heard]).max() < 1e-5


def test_a_clip_of_one_window_continued_by_its_seed_is_the_long_clip(mono_short, alone):
    engine = mono_short.engine
    first = codes_source(engine, tokens_of(engine, sampled(seed=0, duration=1.2)))

    (continued,) = engine.generate([sampled(seed=0, begin_with=first, **FIELDS)])

    assert np.array_equal(continued.codes, alone[0].codes)


def test_prefill_is_bit_for_bit_single_steps(mono_short, mixed_bag, alone, monkeypatch):
    transformer = mono_short.engine.transformer
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", 1)
    monkeypatch.setattr(transformer, "prefill", transformer.step)

    assert_same(by_seed(mono_short.engine.generate(mixed_bag)), alone)


@pytest.mark.parametrize(("chunk", "clips"), [(1, 1), (7, 3), (64, 1), (64, 8)])
def test_chunks_of_any_size_beside_listened_clips_give_the_same_clips(
    mono_short, mixed_bag, alone, monkeypatch, chunk, clips
):
    """The reference has every window's given steps in one chunk, and one clip at a time."""
    engine, done = mono_short.engine, []
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", chunk)
    monkeypatch.setattr(engine._scheduler, "_prefill_clips", clips)
    for number, request in enumerate(mixed_bag):
        engine.add_request(request, list[SoundChunk]().append if number % 2 else None)
        for _ in range(11):
            done += engine.step()
    while len(done) < len(mixed_bag):
        done += engine.step()

    assert_same(by_seed(done), alone)


@pytest.mark.parametrize("listened", [True, False])
@pytest.mark.parametrize(("clips", "rows"), [(1, [20, 20, 10, 20, 20, 10]), (2, [40, 40, 20])])
def test_a_step_computes_a_chunk_of_some_clips_and_a_listened_clip_goes_on(
    mono_short, source, monkeypatch, listened, clips, rows
):
    engine, chunks = mono_short.engine, []
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", 10)
    monkeypatch.setattr(engine._scheduler, "_prefill_clips", clips)
    prefill = engine.transformer.prefill
    monkeypatch.setattr(
        engine.transformer,
        "prefill",
        lambda rows, cache: (chunks.append(len(rows.tokens)), prefill(rows, cache)),
    )
    first = engine.add_request(sampled(), list[SoundChunk]().append if listened else None)
    engine.step()
    for seed in (1, 2):
        engine.add_request(sampled(seed=seed, begin_with=source))

    steps = []
    for _ in rows:
        engine.step()
        steps.append(engine.steps_done_of(first))

    assert chunks == rows  # 25 given steps of two rows of each clip
    assert steps == ([*range(2, len(rows) + 2)] if listened else [1] * len(rows))
    while engine.steps_done < engine.steps_total:
        engine.step()


def test_the_prefill_of_a_listened_clip_comes_first(mono_short, source, monkeypatch):
    monkeypatch.setattr(decode_state, "PREFILL_STEPS", 10)
    engine = mono_short.engine
    waiting = engine.add_request(sampled(seed=1, begin_with=source))
    listened = engine.add_request(sampled(seed=2, begin_with=source), list[SoundChunk]().append)

    for _ in range(4):
        engine.step()

    assert engine.steps_done_of(listened) == 1
    assert engine.steps_done_of(waiting) == 0
    while engine.steps_done < engine.steps_total:
        engine.step()


def test_the_two_ends_of_a_mix_are_the_clips_of_either_prompt(mono_short):
    engine, fields = mono_short.engine, {"prompt_b": PROMPTS[1], "seed": 3}
    (first,) = engine.generate([sampled(seed=3)])
    (second,) = engine.generate([sampled(PROMPTS[1], seed=3)])

    ends = list(engine.generate([sampled(mix=mix, **fields) for mix in (0, 0.5, 1)]))

    codes = {clip.request.mix: clip.codes for clip in ends}
    assert np.array_equal(codes[0], first.codes)
    assert np.array_equal(codes[1], second.codes)
    assert not np.array_equal(codes[0.5], first.codes)
    assert not np.array_equal(codes[0.5], second.codes)


def test_the_order_of_two_prompts_does_not_matter(mono_short):
    requests = [
        sampled(PROMPTS[0], prompt_b=PROMPTS[1], mix=0.25, seed=3),
        sampled(PROMPTS[1], prompt_b=PROMPTS[0], mix=0.75, seed=3),
    ]

    one, other = mono_short.engine.generate(requests)

    assert np.array_equal(one.codes, other.codes)


def test_away_from_the_prompt_itself_guidance_leads_nowhere(mono_short):
    engine = mono_short.engine
    (plain,) = engine.generate([sampled(seed=1, cfg_coef=1)])
    (same,) = engine.generate([sampled(seed=1, cfg_coef=5, negative_prompt=PROMPTS[0])])
    (away,) = engine.generate([sampled(seed=1, cfg_coef=5, negative_prompt=PROMPTS[1])])
    (unguided,) = engine.generate([sampled(seed=1, cfg_coef=1, negative_prompt=PROMPTS[1])])

    assert np.array_equal(same.codes, plain.codes)
    assert np.array_equal(unguided.codes, plain.codes)
    assert not np.array_equal(away.codes, plain.codes)


@pytest.mark.parametrize(
    ("fields", "rows", "texts"),
    [
        ({}, 2, 1),
        ({"cfg_coef": 1, "negative_prompt": PROMPTS[1]}, 1, 1),
        ({"negative_prompt": PROMPTS[1]}, 2, 2),
        ({"prompt_b": PROMPTS[1], "mix": 0.5}, 3, 2),
        ({"prompt_b": PROMPTS[1], "mix": 1}, 2, 1),
        ({"prompt_b": PROMPTS[0], "mix": 0.5}, 2, 1),
        ({"prompt_b": PROMPTS[1], "mix": 0.5, "cfg_coef": 1}, 2, 2),
        ({"prompt_b": PROMPTS[1], "mix": 0.5, "cfg_coef": 0}, 1, 0),
        (FIELDS, 2, 1),
    ],
)
def test_a_clip_takes_the_memory_of_its_rows_and_one_window(mono_short, fields, rows, texts):
    engine = mono_short.engine
    before = engine._cache.free_blocks
    request_id = engine.add_request(sampled(**fields))
    engine.step()
    taken = before - engine._cache.free_blocks
    engine.abort(request_id)
    engine.step()

    assert taken == rows + texts  # of one block each
    assert engine._cache.free_blocks == before


@pytest.mark.parametrize("max_clips", [1, 2])
def test_clips_that_mix_wait_for_rows_where_few_clips_fit(mono_short, alone, max_clips):
    engine = Engine.open(mono_short.folder, EngineOptions("cpu", "float32", max_clips))
    fields = {"prompt_b": PROMPTS[1], "mix": 0.4, "seed": 3, **FIELDS}
    for _ in range(2):
        engine.add_request(sampled(**fields))
    running, done = [], []
    while len(done) < 2:
        done += engine.step()
        running.append(len(engine._scheduler.running))

    assert max(running) == 1  # 2 x 3 rows are more than 4
    for clip in done:
        assert np.array_equal(clip.codes, alone[3].codes)


def test_texts_that_never_fit_together_are_refused(mono):
    engine = Engine.open(mono.folder, EngineOptions("cpu", "float32", 1))
    names = ("prompt", "prompt_b", "negative_prompt")
    texts = {name: "x " * (600 + index) for index, name in enumerate(names)}
    request = sampled(duration=30, mix=0.5).model_copy(update=texts)

    (failure,) = engine.generate([request])

    assert failure.error_type == "InvalidRequest"
    assert "shorten them, or raise max_clips" in failure.message


def test_progress_counts_the_steps_of_all_windows(mono_short, mixed_bag, source):
    engine = Engine.open(mono_short.folder, EngineOptions("cpu", "float32", 8))
    seen = []
    engine.on_progress = seen.append

    list(engine.generate(mixed_bag))

    lag = engine.config.delays[-1]
    three_windows = 137 + 2 * lag + lag
    assert engine.count_steps(mixed_bag[0]) == three_windows
    assert engine.count_steps(mixed_bag[2]) == three_windows - 25
    assert sum(seen) == engine.steps_done == engine.steps_total
    assert engine.steps_total == sum(map(engine.count_steps, mixed_bag))


def test_a_long_clip_that_is_aborted_between_windows_frees_its_memory(mono_short, alone):
    engine = mono_short.engine
    before = engine._cache.free_blocks
    kept, dropped = (engine.add_request(sampled(seed=s, **FIELDS)) for s in (0, 9))
    while engine.steps_done_of(kept) < 70:
        engine.step()
    engine.abort(dropped)
    done = []
    while not done:
        done = engine.step()

    assert_same(by_seed(done), alone)
    assert engine.step() == []
    assert engine._cache.free_blocks == before
    assert engine.steps_done == engine.steps_total


@pytest.mark.parametrize(("stage", "at_once"), [("next_window", 1), ("prefill", 1), ("prefill", 4)])
def test_a_clip_whose_next_window_fails_fails_alone(mono_short, alone, monkeypatch, stage, at_once):
    state = mono_short.engine._state
    begin = getattr(state, stage)

    def fail(begun):
        clips = begun if stage == "prefill" else [begun]
        if any(clip.request.seed == 9 for clip in clips):
            raise RuntimeError("no memory for the next window")
        begin(begun)

    monkeypatch.setattr(state, stage, fail)
    monkeypatch.setattr(mono_short.engine._scheduler, "_prefill_clips", at_once)

    results = by_seed(mono_short.engine.generate([sampled(seed=s, **FIELDS) for s in (9, 0)]))

    assert isinstance(results.pop(9), Failure)
    assert_same(results, alone)
    assert mono_short.engine.steps_done == mono_short.engine.steps_total


def test_a_continuation_can_leave_out_what_it_begins_with(mono_short, mixed_bag, alone):
    request = mixed_bag[2]
    short = type(request)(**{**dict(request), "include_start": False})

    (clip,) = mono_short.engine.generate([short])

    assert np.array_equal(clip.codes, alone[2].codes[:, 25:])
    assert np.array_equal(clip.samples, alone[2].samples[:, 25 * 640 :])


@pytest.mark.parametrize("include_start", [True, False])
def test_the_chunks_of_a_streamed_clip_are_its_sound(mono_short, source, include_start):
    engine, chunks, done = mono_short.engine, [], []
    request = sampled(seed=2, begin_with=source, include_start=include_start, **FIELDS)
    engine.add_request(request, chunks.append)
    while not done:
        done = engine.step()

    sound = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    assert len(chunks) > 1
    assert chunks[0].start_s == 0
    assert {chunk.total_samples for chunk in chunks} == {sound.shape[1]}
    assert np.abs(sound - done[0].samples).max() < 1e-5


def test_codes_of_another_codec_are_refused(mono_short):
    config = mono_short.engine.config
    codes = np.zeros((config.codebooks, 30), np.uint16)
    own = mono_short.engine.provenance.details["codec"]
    foreign = SourceCodes(codes, "another", config.frame_rate)
    too_few = SourceCodes(codes[:2], own, config.frame_rate)
    too_high = SourceCodes(codes + config.card, own, config.frame_rate)
    requests = [
        sampled(seed=seed, begin_with=Source.of_bytes(each.to_bytes()))
        for seed, each in enumerate([foreign, too_few, too_high])
    ]

    results = by_seed(mono_short.engine.generate([*requests, sampled(seed=7)]))

    assert isinstance(results.pop(7), Clip)
    assert {result.error_type for result in results.values()} == {"InvalidRequest"}
    assert f"has {config.codebooks} codebooks of the codec another, and" in results[0].message
    assert f"has 2 codebooks of the codec {own}, and" in results[1].message
    assert f"must have codes below {config.card}" in results[2].message


def test_a_clip_begins_with_at_most_a_window_of_a_sound(mono_short):
    sound = Source.of_bytes(sound_file(sine(220, duration_s=2.0, amplitude=0.5)), "hum.wav")

    (failure,) = mono_short.engine.generate(
        [sampled(begin_with=sound, duration=LONG_S, extend_stride=1.0)]
    )

    assert failure.error_type == "InvalidRequest"
    assert "at most 1.2 seconds of a sound, got 2; choose a part" in failure.message


def test_a_sound_is_converted_to_the_models_and_the_clip_says_so(short):
    channels = short.engine.config.channels
    rate = 44_100
    tone = sine(220, duration_s=1.0, amplitude=0.5, rate=rate)
    sound = np.concatenate([tone, 0.5 * tone]) if channels == 1 else tone
    source = Source.of_bytes(sound_file(sound, rate=rate), "tone.wav")

    (clip,) = short.engine.generate([sampled(begin_with=source, begin_at=0.2, begin_s=0.5)])

    mixed = "mixed to mono" if channels == 1 else "mono on both channels"
    note = clip.provenance.details["begin_with_converted"]
    assert note == f"resampled from 44,100 to 32,000 Hz, {mixed}"
    assert clip.codes.shape == (short.engine.config.codebooks, 50)


@needs_audiocraft
@pytest.mark.parametrize("begin_s", [0.8, 0.818])  # the latter is 40.9 frames
def test_a_clip_that_begins_with_a_sound_is_audiocrafts_continuation(short, begin_s):
    channels = short.engine.config.channels
    sound = noise(level=0.2, duration_s=1.5, rate=32_000, channels=channels)
    source = Source.of_bytes(sound_file(sound, rate=32_000, subtype="FLOAT"), "noise.wav")
    request = greedy(begin_with=source, begin_at=0.1, begin_s=begin_s, **FIELDS)

    ours = tokens_of(short.engine, request)

    theirs = short.reference.generate_tokens(request)[0]
    assert ours[:, :40].unique().numel() > 10  # codes that say something
    assert torch.equal(ours, theirs)
