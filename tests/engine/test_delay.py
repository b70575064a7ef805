"""The delay pattern is audiocraft's."""

import pytest
import torch

from musicgen_lab.engine.delay import delay, undelay
from musicgen_lab.models.released import released_config
from tests.support.reference import needs_audiocraft

DELAYS = [[0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3], [0], [0, 2, 5]]


@needs_audiocraft
@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize("frames", [1, 2, 7, 50])
def test_sequence_length_positions_and_order_are_audiocrafts(delays, frames):
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider

    pattern = DelayedPatternProvider(len(delays), delays=delays).get_pattern(frames)
    codes = torch.arange(len(delays) * frames).view(1, len(delays), frames)
    sequence, _, _ = pattern.build_pattern_sequence(codes, special_token=-1)

    assert torch.equal(undelay(sequence[0].T, frames, delays), codes[0])
    assert torch.equal(delay(codes[0], delays, -1), sequence[0].T)


def test_frames_are_cut_down_to_whole_ones_as_audiocraft_does():
    config = released_config("small")

    assert config.count_frames(1.0) == 50
    assert config.count_frames(2.3) == int(2.3 * 50)
    assert config.count_steps(30.0) == config.max_steps == 1503
