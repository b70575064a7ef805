"""The codec in 16 bits: used where it says the same as in float32, and nowhere else."""

import pytest
import torch
from torch.nn import functional as F

from musicgen_lab.engine import codec as codec_module
from musicgen_lab.engine.codec import Codec
from musicgen_lab.engine.config import CODEC_FOLDER, load_config
from musicgen_lab.engine.cudnn import exact_convolutions


@pytest.fixture
def open_codec(mono):
    config = load_config(mono.folder)

    def open_in(dtype):
        return Codec(
            mono.folder / CODEC_FOLDER,
            channels=config.channels,
            codebooks=config.codebooks,
            card=config.card,
            device=torch.device("cpu"),
            dtype=dtype,
        )

    return open_in


@pytest.fixture
def codes(mono):
    config = load_config(mono.folder)
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(config.card, (config.codebooks, n), generator=generator) for n in (80, 9)]


def test_bfloat16_is_refused_because_its_noise_can_be_measured_in_a_clip(open_codec, codes):
    codec = open_codec(torch.bfloat16)

    assert codec.dtype == torch.float32
    expected = open_codec(torch.float32).decode(codes)
    assert all(map(torch.equal, codec.decode(codes), expected))


def test_sixteen_bits_that_pass_the_trial_are_used(open_codec, codes, monkeypatch):
    monkeypatch.setattr(codec_module, "TRIAL_COSINE_MIN", 0.99)
    half = open_codec(torch.bfloat16)
    expected = open_codec(torch.float32).decode(codes)

    assert half.dtype == torch.bfloat16
    for heard, sound in zip(half.decode(codes), expected, strict=True):
        assert heard.dtype == torch.float32
        assert F.cosine_similarity(heard, sound).item() > 0.999


def test_a_processor_whose_sixteen_bit_convolutions_are_wrong_gets_float32(
    open_codec, codes, monkeypatch
):
    monkeypatch.setattr(codec_module, "TRIAL_COSINE_MIN", 1.01)  # which no precision reaches
    codec = open_codec(torch.float16)

    assert codec.dtype == torch.float32
    expected = open_codec(torch.float32).decode(codes)
    assert all(map(torch.equal, codec.decode(codes), expected))


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
