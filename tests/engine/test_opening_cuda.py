"""The codec and the moving of weights on an NVIDIA GPU; skipped where there is none."""

import copy
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.engine import upload as upload_module
from musicgen_lab.engine.codec import Codec
from musicgen_lab.engine.codec_lstm import (
    FIXED_CLIPS,
    FIXED_FRAMES,
    FixedShapeLstm,
    LstmState,
    OneByOneLstm,
    choose_lstm,
)
from musicgen_lab.engine.cudnn import exact_convolutions
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.model import Model
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.engine.upload import move_weights
from musicgen_lab.models.checkpoint import Checkpoint
from musicgen_lab.request import GenerationRequest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LENGTHS = [1, FIXED_FRAMES - 1, FIXED_FRAMES, FIXED_FRAMES + 1, 400, *[50] * FIXED_CLIPS]


@pytest.fixture(scope="module")
def model():
    return Model(EMBEDDED_FOLDER)


def open_codec(model, device):
    config = model.config
    return Codec(
        model.codec,
        channels=config.channels,
        codebooks=config.codebooks,
        card=config.card,
        device=device,
    )


def draw_codes(model, device):
    generator = torch.Generator().manual_seed(0)
    shapes = [(model.config.codebooks, frames) for frames in LENGTHS]
    return [torch.randint(model.config.card, s, generator=generator).to(device) for s in shapes]


def test_a_clip_among_many_sounds_as_it_does_alone(model):
    codec, clips = open_codec(model, GPU), draw_codes(model, GPU)

    together, backwards = codec.decode(clips), codec.decode(clips[::-1])[::-1]

    for codes, sound, same in zip(clips, together, backwards, strict=True):
        assert torch.equal(sound, same)
        assert torch.equal(sound, codec.decode([codes])[0])


def test_the_parts_of_a_clip_are_the_clip_within_a_third_of_a_16_bit_step(model):
    codec, codes = open_codec(model, GPU), draw_codes(model, GPU)[4]
    decoding = codec.start(codes.shape[1])

    parts = [codec.decode_parts([(decoding, some)])[0] for some in torch.split(codes, 10, dim=1)]

    (whole,) = codec.decode([codes])
    assert torch.allclose(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5)


def test_the_lstm_has_the_same_bits_in_any_company_and_those_of_the_cpu_but_for_rounding():
    lstm = nn.LSTM(200, 200, 2).requires_grad_(False)
    clips = [torch.randn(1, 200, frames) for frames in LENGTHS]

    def run(kind, some):
        with exact_convolutions(some[0].device):
            return kind(some, [LstmState.first(2, 200, some[0].device) for _ in some])

    chosen, on_gpu = choose_lstm(copy.deepcopy(lstm), GPU), [clip.to(GPU) for clip in clips]
    assert isinstance(chosen, FixedShapeLstm)
    together, backwards = run(chosen, on_gpu), run(chosen, on_gpu[::-1])[::-1]

    for clip, y, same, expected in zip(
        on_gpu, together, backwards, run(OneByOneLstm(lstm), clips), strict=True
    ):
        assert torch.equal(y, same)
        assert torch.equal(y, run(chosen, [clip])[0])
        assert torch.allclose(y.cpu(), expected, atol=1e-5)


def test_the_audio_equals_that_of_the_cpu_without_a_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sounds = open_codec(model, GPU).decode(draw_codes(model, GPU))

    for sound, expected in zip(
        sounds, open_codec(model, CPU).decode(draw_codes(model, CPU)), strict=True
    ):
        assert torch.allclose(sound, expected, atol=1e-5)


@pytest.mark.parametrize("loaded", [False, True])
def test_weights_arrive_as_they_were_stored_in_the_requested_precision(
    tmp_path, monkeypatch, loaded
):
    monkeypatch.setattr(upload_module, "PIECE_BYTES", 1000)  # so that a tensor spans several
    stored = {
        "half": torch.randn(70, 100).half(),
        "full": torch.randn(3, 5),
        "scalar": torch.tensor(1.5),
    }
    save_file(stored, tmp_path / "weights.safetensors")
    checkpoint = Checkpoint(tmp_path / "weights.safetensors")
    if loaded:
        checkpoint.load()

    with move_weights(checkpoint, GPU, torch.bfloat16) as weights:
        moved = weights()

    assert moved.keys() == stored.keys()
    for name, tensor in moved.items():
        assert tensor.device == GPU
        assert torch.equal(tensor.cpu(), stored[name].bfloat16())


def test_a_model_that_was_in_memory_first_makes_the_same_clip(model):
    loaded = Model(EMBEDDED_FOLDER)
    loaded.load()
    request = GenerationRequest(prompt="piano", duration=1, seed=1)

    clips = [
        next(Engine.from_model(m, EngineOptions(max_clips=2)).generate([request]))
        for m in (model, loaded)
    ]

    assert (clips[0].samples == clips[1].samples).all()
