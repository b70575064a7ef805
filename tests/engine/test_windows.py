"""Clips that begin with given codes, and clips that are made in several windows.

The models here have windows of 1.2 s, which extend by 1 s, so that long clips are cheap to make.
"""

import numpy as np
import pytest
import torch

from tests.support.cases import (
    PROMPTS,
    codes_source,
    greedy,
    sampled,
    tokens_of,
    with_short_windows,
)
from tests.support.reference import needs_audiocraft

LONG_S = 2.75  # three windows: 0 to 1.2, 1.0 to 2.2, 2.0 to 2.75 s
FIELDS = {"duration": LONG_S, "extend_stride": 1.0}


@pytest.fixture(scope="module")
def make_short(make_case, tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(f"{name} in short windows") / "model"
            made[name] = with_short_windows(make_case(name), folder)
        return made[name]

    return make


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
