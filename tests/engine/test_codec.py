"""The codec decodes many clips at once, each as if it were alone."""

import weakref

import pytest
import torch
from torch import nn

from musicgen_lab.engine import codec as codec_module
from musicgen_lab.engine.codec import Codec, CodecFiles
from musicgen_lab.engine.codec_lstm import (
    FIXED_CLIPS,
    FIXED_FRAMES,
    FixedShapeLstm,
    LstmState,
    OneByOneLstm,
    RowwiseLstm,
)
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.models.config import CODEC_FOLDER, load_config
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from tests.support.cases import ARCHITECTURES

FRAMES = [1, FIXED_FRAMES, 2 * FIXED_FRAMES + 7, 30]


def open_codec(folder):
    config = load_config(folder)
    return Codec(
        CodecFiles(folder / CODEC_FOLDER),
        channels=config.channels,
        codebooks=config.codebooks,
        card=config.card,
        device=torch.device("cpu"),
    )


def random_codes(folder, frames):
    config = load_config(folder)
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(config.card, (config.codebooks, frames), generator=generator)


@pytest.fixture
def codec(mono):
    return open_codec(mono.folder)


@pytest.fixture(params=["embedded", *ARCHITECTURES])
def folder(request, make_case):
    return EMBEDDED_FOLDER if request.param == "embedded" else make_case(request.param).folder


@pytest.mark.parametrize("part_frames", [1500, 7])
def test_a_clip_among_many_sounds_as_it_does_alone(codec, mono, monkeypatch, part_frames):
    monkeypatch.setattr(codec_module, "PART_FRAMES", part_frames)
    config = load_config(mono.folder)
    generator = torch.Generator().manual_seed(1)
    shapes = [(config.codebooks, frames) for frames in (80, 9, *range(1, 12))]
    clips = [torch.randint(config.card, shape, generator=generator) for shape in shapes]

    together = codec.decode(clips)

    for codes, sound in zip(clips, together, strict=True):
        assert torch.equal(sound, codec.decode([codes])[0])


@pytest.mark.parametrize("step", [1, 7, 60])
def test_the_parts_of_a_clip_are_the_clip_within_a_third_of_a_16_bit_step(folder, step):
    codec, codes = open_codec(folder), random_codes(folder, 130)
    (whole,) = codec.decode([codes])
    decoding, sounds = codec.start(130), []

    for first in range(0, 130, step):
        promised = codec.decodable(decoding, min(first + step, 130))
        sounds += codec.decode_parts([(decoding, codes[:, first : first + step])])
        assert decoding.decoded == promised
        assert sum(sound.shape[1] for sound in sounds) == promised * codec.samples_per_frame

    together = torch.cat(sounds, dim=1)
    assert together.shape == whole.shape
    assert torch.allclose(together, whole, rtol=0, atol=1e-5)
    assert whole.abs().max() > 0.05


def test_a_frame_is_decoded_as_soon_as_a_tenth_of_a_second_after_it_is_known(folder):
    codec = open_codec(folder)
    decoding = codec.start(100)

    latest = max(frames - codec.decodable(decoding, frames) for frames in range(20, 100))

    assert latest <= 5
    assert codec.decodable(decoding, 100) == 100


def test_parts_of_clips_at_other_places_are_what_they_are_alone(folder):
    codec = open_codec(folder)
    clips = [random_codes(folder, frames) for frames in (40, 57)]
    alone = [codec.start(40), codec.start(57)]
    expected = [
        [
            codec.decode_parts([(each, codes[:, :20])])[0],
            codec.decode_parts([(each, codes[:, 20:])])[0],
        ]
        for each, codes in zip(alone, clips, strict=True)
    ]
    first, second = codec.start(40), codec.start(57)

    beginning = codec.decode_parts([(first, clips[0][:, :20])])
    both = codec.decode_parts([(second, clips[1][:, :20]), (first, clips[0][:, 20:])])
    end = codec.decode_parts([(second, clips[1][:, 20:])])

    assert torch.equal(beginning[0], expected[0][0])
    assert torch.equal(both[1], expected[0][1])
    assert torch.equal(both[0], expected[1][0])
    assert torch.equal(end[0], expected[1][1])


@torch.inference_mode()
@pytest.mark.parametrize("kind", [OneByOneLstm, FixedShapeLstm, RowwiseLstm])
def test_an_lstm_carries_its_state_from_one_part_to_the_next(kind):
    torch.manual_seed(0)
    lstm = kind(nn.LSTM(16, 16, 2))
    clips = [torch.randn(1, 16, frames) for frames in (250, 70)]
    whole = lstm(clips, first_states(2, 16, 2))
    states = first_states(2, 16, 2)

    heads = lstm([clips[0][..., :30], clips[1][..., :60]], states)
    tails = lstm([clips[0][..., 30:], clips[1][..., 60:]], states)

    for head, tail, expected in zip(heads, tails, whole, strict=True):
        together = torch.cat([head, tail], dim=2)
        if kind is OneByOneLstm:  # torch adds in another order for another length
            assert torch.allclose(together, expected, atol=1e-6)
        else:
            assert torch.equal(together, expected)


def first_states(clips, width, layers):
    return [LstmState.first(layers, width, torch.device("cpu")) for _ in range(clips)]


def test_a_long_clip_is_decoded_in_parts_and_sounds_as_it_does_in_one_go(codec, mono, monkeypatch):
    config = load_config(mono.folder)
    shape = (config.codebooks, 100)
    codes = torch.randint(config.card, shape, generator=torch.Generator().manual_seed(1))
    (whole,) = codec.decode([codes])
    monkeypatch.setattr(codec_module, "PART_FRAMES", 40)

    short, long = codec.decode([codes[:, :30], codes])

    assert torch.equal(short, codec.decode([codes[:, :30]])[0])
    assert long.shape == whole.shape
    assert (long - whole).abs().max() < 1e-5


@torch.inference_mode()
def test_an_lstm_of_fixed_shapes_is_the_lstm_with_its_input_added():
    torch.manual_seed(0)
    lstm = nn.LSTM(16, 16, 2)
    clips = [torch.randn(1, 16, frames) for frames in FRAMES]

    outputs = FixedShapeLstm(lstm)(clips, first_states(len(clips), 16, 2))

    for x, y in zip(clips, outputs, strict=True):
        expected = lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0) + x
        assert y.shape == x.shape
        assert torch.allclose(y, expected, atol=1e-6)


@torch.inference_mode()
def test_an_lstm_of_fixed_shapes_takes_any_number_of_clips_and_keeps_their_order():
    torch.manual_seed(0)
    fixed = FixedShapeLstm(nn.LSTM(8, 8, 1))
    clips = [torch.randn(1, 8, 3) for _ in range(2 * FIXED_CLIPS + 1)]

    outputs = fixed(clips, first_states(len(clips), 8, 1))

    assert len(outputs) == len(clips)
    assert torch.allclose(outputs[-1], fixed(clips[-1:], first_states(1, 8, 1))[0], atol=1e-6)


class _Positional(nn.LSTM):
    """An LSTM that is faulty on purpose: its result depends on the position in the batch."""

    def forward(self, x, state=None):
        y, state = super().forward(x, state)
        return y + torch.arange(x.shape[1])[:, None] * 1e-6, state


@pytest.mark.parametrize(("kind", "independent"), [(nn.LSTM, True), (_Positional, False)])
def test_the_trial_detects_an_lstm_whose_clips_depend_on_their_position(kind, independent):
    torch.manual_seed(0)
    assert FixedShapeLstm(kind(8, 8, 1)).rows_are_independent() is independent


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


def test_what_could_not_be_decoded_keeps_no_memory_from_the_clips_after_it(
    codec, mono, monkeypatch
):
    clips = [random_codes(mono.folder, frames) for frames in (30, 40, 50)]
    expected, after, allocated = codec.decode(clips[2:]), codec._after, []

    def run_out_of_memory(hidden):
        scratch = torch.empty(1)
        if hidden.shape[-1] < 50 or any(each() is not None for each in allocated):
            allocated.append(weakref.ref(scratch))
            raise MemoryError("no room")
        return after(hidden)

    monkeypatch.setattr(codec, "_after", run_out_of_memory)
    *failed, sound = codec.decode_each(clips)

    assert [str(error) for error in failed] == ["no room", "no room"]
    assert torch.equal(sound, expected[0])


def test_long_clips_are_decoded_together_in_the_memory_of_one_part(mono, codec, monkeypatch):
    monkeypatch.setattr(codec_module, "PART_FRAMES", 40)
    clips = [random_codes(mono.folder, frames) for frames in (130, 57)]
    expected = [codec.decode([codes])[0] for codes in clips]
    decode_next, frames_at_once = codec._decode_next, []

    def decode_counted(parts):
        frames_at_once.append([codes.shape[1] for _, codes in parts])
        return decode_next(parts)

    monkeypatch.setattr(codec, "_decode_next", decode_counted)
    sounds = codec.decode(clips)

    assert frames_at_once == [[40, 40], [40, 17], [40], [10]]
    assert all(torch.equal(*pair) for pair in zip(sounds, expected, strict=True))
