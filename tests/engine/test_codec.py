"""The codec decodes many clips at once, each as if it were alone."""

import pytest
import torch
from torch import nn

from musicgen_lab.engine.codec import FIXED_CLIPS, FIXED_FRAMES, Codec, CodecFiles, _FixedShapeLstm
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.models.config import CODEC_FOLDER, load_config

FRAMES = [1, FIXED_FRAMES, 2 * FIXED_FRAMES + 7, 30]


@pytest.fixture
def codec(mono):
    config = load_config(mono.folder)
    return Codec(
        CodecFiles(mono.folder / CODEC_FOLDER),
        channels=config.channels,
        codebooks=config.codebooks,
        card=config.card,
        device=torch.device("cpu"),
    )


def test_a_clip_among_many_sounds_as_it_does_alone(codec, mono):
    config = load_config(mono.folder)
    generator = torch.Generator().manual_seed(1)
    shapes = [(config.codebooks, frames) for frames in (80, 9, *range(1, 12))]
    clips = [torch.randint(config.card, shape, generator=generator) for shape in shapes]

    together = codec.decode(clips)

    for codes, sound in zip(clips, together, strict=True):
        assert torch.equal(sound, codec.decode([codes])[0])


@torch.inference_mode()
def test_an_lstm_of_fixed_shapes_is_the_lstm_with_its_input_added():
    torch.manual_seed(0)
    lstm = nn.LSTM(16, 16, 2)
    clips = [torch.randn(1, 16, frames) for frames in FRAMES]

    outputs = _FixedShapeLstm(lstm)(clips)

    for x, y in zip(clips, outputs, strict=True):
        expected = lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0) + x
        assert y.shape == x.shape
        assert torch.allclose(y, expected, atol=1e-6)


@torch.inference_mode()
def test_an_lstm_of_fixed_shapes_takes_any_number_of_clips_and_keeps_their_order():
    torch.manual_seed(0)
    fixed = _FixedShapeLstm(nn.LSTM(8, 8, 1))
    clips = [torch.randn(1, 8, 3) for _ in range(2 * FIXED_CLIPS + 1)]

    outputs = fixed(clips)

    assert len(outputs) == len(clips)
    assert torch.allclose(outputs[-1], fixed(clips[-1:])[0], atol=1e-6)


class _Positional(nn.LSTM):
    """An LSTM that is faulty on purpose: its result depends on the position in the batch."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + torch.arange(x.shape[1])[:, None] * 1e-6, state


@pytest.mark.parametrize(("kind", "independent"), [(nn.LSTM, True), (_Positional, False)])
def test_the_trial_detects_an_lstm_whose_clips_depend_on_their_position(kind, independent):
    torch.manual_seed(0)
    assert _FixedShapeLstm(kind(8, 8, 1)).rows_are_independent() is independent


def test_cudnn_is_kept_exact_on_a_gpu_and_left_as_it_was():
    def settings():
        cudnn = torch.backends.cudnn
        return cudnn.deterministic, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision

    before = settings()
    with pytest.raises(ZeroDivisionError), exact_convolutions(torch.device("cuda")):
        assert settings() == (True, "ieee", "ieee")
        raise ZeroDivisionError
    assert settings() == before
    with exact_convolutions(torch.device("cpu")):
        assert settings() == before
