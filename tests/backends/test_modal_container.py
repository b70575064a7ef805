"""How many clips a container on Modal lets in, by what its engine has room for."""

from musicgen_lab.backends.gpus import GPUS
from musicgen_lab.backends.modal_container import count_room
from musicgen_lab.models.released import released_config
from musicgen_lab.request import GenerationRequest
from tests.support.capacity import capacity_on_gpu

LARGE_ON_A10 = capacity_on_gpu(released_config("large"), GPUS["A10"].memory_bytes)


def clip(duration_s, **fields):
    return GenerationRequest(prompt="drums", duration=duration_s, **fields)


def test_an_empty_container_takes_as_many_of_the_longest_clips_as_fit():
    assert count_room(LARGE_ON_A10, []) == LARGE_ON_A10.clips(30) < LARGE_ON_A10.max_clips


def test_short_clips_leave_room_for_more_and_the_longest_for_no_more_than_that():
    longest = LARGE_ON_A10.clips(30)
    assert count_room(LARGE_ON_A10, [clip(30)] * longest) == longest
    assert count_room(LARGE_ON_A10, [clip(8)] * longest) > longest


def test_a_clip_is_let_in_only_where_one_of_any_length_fits():
    clips = []
    while count_room(LARGE_ON_A10, clips) > len(clips):
        clips.append(clip(4))
    used = sum(LARGE_ON_A10.clip_blocks(each.duration) for each in clips[:-1])
    assert LARGE_ON_A10.blocks - used >= LARGE_ON_A10.clip_blocks(30)


def test_clips_of_mixed_prompts_take_the_room_of_three_rows():
    longest = LARGE_ON_A10.clips(30)
    mixes = [clip(30, prompt_b="piano", mix=0.5)] * (longest // 2)
    assert count_room(LARGE_ON_A10, mixes) < longest
