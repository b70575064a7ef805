"""The codec works by computation alone, before any training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen_lab.demo.composition import Piece
from musicgen_lab.demo.synthesiser import synthesise
from musicgen_lab.demo.train_codec import CodecTraining, initialise_codec, train_decoder
from tests.support.reference import needs_audiocraft

pytestmark = needs_audiocraft

TINY = CodecTraining(steps=2, clips=40, clip_s=2.0, batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("codec")


@pytest.fixture(scope="module")
def codec(folder):
    return initialise_codec(folder, TINY)


@pytest.fixture(scope="module")
def sound():
    piece = Piece("piano", 100, "major", "solo", False, False, False, True)
    return torch.from_numpy(synthesise(piece, 2.0, np.random.default_rng(0)))[None, None]


def snr_db(heard, sound):
    return float(10 * torch.log10(sound.pow(2).sum() / (heard - sound).pow(2).sum()))


@torch.no_grad()
def test_the_transform_and_back_lose_little(codec, sound):
    assert snr_db(codec.decoder(codec.encoder(sound)), sound) > 12


@torch.no_grad()
def test_four_codebooks_of_k_means_keep_the_waveform(codec, sound):
    codes, _ = codec.encode(sound)
    assert codes.shape == (1, 4, 100)
    assert snr_db(codec.decode(codes), sound) > 4


@torch.no_grad()
def test_codes_do_not_depend_on_what_comes_later(codec, sound):
    changed = sound.clone()
    changed[..., 640 * 51 :] = 0
    before, after = (codec.encode(x)[0][..., :50] for x in (sound, changed))
    assert torch.equal(before, after)


def test_training_the_decoder_leaves_the_codes_alone_and_can_be_resumed(folder, codec, sound):
    with torch.no_grad():
        before = codec.encode(sound)[0]
    train_decoder(folder, codec, TINY, torch.device("cpu"))
    again = train_decoder(folder, initialise_codec(folder, TINY), TINY, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(before, again.encode(sound)[0])
        assert torch.equal(codec.decode(before), again.decode(before))
