"""The whole recipe, tiny: from nothing to a model folder that the engine plays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip
from musicgen_lab.demo.architecture import CARD
from musicgen_lab.demo.dataset import DatasetSize, TokenClip, load_tokens
from musicgen_lab.demo.lm_losses import add_noise, codebook_losses
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.train import LICENSE, NAME, train
from musicgen_lab.demo.train_codec import CodecTraining
from musicgen_lab.demo.train_lm import LMTraining, deaf_weights, noise_rates
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.reference.models import open_models
from musicgen_lab.request import GenerationRequest
from tests.support.reference import needs_audiocraft

SIZE = DatasetSize(short=12, short_s=2.0, long=2, long_s=30.0)
CODEC = CodecTraining(steps=1, clips=40, clip_s=2.0, batch=2)
BYTES_MAX = 12_000_000


def run(folder, steps):
    lm = LMTraining(steps=steps, batch_frames=200, text_steps=3, deaf_spans=((0, 2),))
    return train(
        folder / "work",
        folder / "model",
        torch.device("cpu"),
        size=SIZE,
        codec_training=CODEC,
        lm_training=lm,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return run(tmp_path_factory.mktemp("recipe"), steps=3)


@needs_audiocraft
def test_the_model_is_small_and_says_whose_it_is(model):
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    config = (model / "config.json").read_text()
    assert size <= BYTES_MAX
    assert NAME in config
    assert LICENSE in config


@needs_audiocraft
def test_the_engine_plays_it(model):
    request = GenerationRequest(prompt="jazzy piano solo", duration=1, seed=0)
    (clip,) = Engine.open(model, EngineOptions(dtype="float32", max_clips=1)).generate([request])
    assert isinstance(clip, Clip)
    assert clip.samples.shape == (1, 32_000)
    assert np.isfinite(clip.samples).all()


@needs_audiocraft
def test_audiocraft_itself_finds_the_trained_codes_likely(model):
    """The exported model is what was trained: its loss is that of training, in 16 bits."""
    lm, _ = open_models(model, torch.device("cpu"))
    clip = load_tokens(model.parent / "work" / "tokens")[-1]
    codes = torch.from_numpy(clip.codes[None].astype(np.int64))
    with torch.no_grad():
        losses = codebook_losses(lm, codes, ["piano"], torch.zeros(1, dtype=torch.long))
    assert losses.shape == (4,)
    assert (losses < 9).all()


def test_nothing_is_heard_over_the_deaf_spans_and_most_of_it_elsewhere():
    training = LMTraining(deaf_spans=((0, 10), (20, 30)))

    def rates(step):
        return noise_rates(2000, training, step)

    for step in (0, 9, 20, 29):
        assert (rates(step) == 1).all()
    for step in (10, 19, 30):
        heard = rates(step)
        assert heard.min() >= 0
        assert heard.max() == 1
        assert (heard <= training.noise_max).float().mean() == pytest.approx(0.75, abs=0.05)


def test_where_nothing_is_heard_a_tempo_is_drawn_by_the_square_of_its_beat():
    rng = np.random.default_rng(0)
    pieces = [replace(draw_piece(rng), tempo_bpm=tempo_bpm) for tempo_bpm in (60, 150, 150)]

    weights = deaf_weights([TokenClip(piece, np.zeros((4, 1), np.int16)) for piece in pieces])

    assert weights == pytest.approx([50**2 / 3300, 20**2 / 3300, 20**2 / 3300])


def test_noise_replaces_codes_at_each_clips_rate_and_leaves_the_special_token():
    tokens = torch.full((2, 4, 1000), CARD)
    tokens[:, :, 1:] = 7
    noisy = add_noise(tokens, torch.tensor([0.0, 0.5]))

    assert torch.equal(noisy[0], tokens[0])
    assert (noisy[:, :, 0] == CARD).all()
    assert (noisy[1, :, 1:] != 7).float().mean() == pytest.approx(0.5, abs=0.05)


@needs_audiocraft
def test_a_finished_run_is_not_done_again_and_a_longer_one_goes_on(model):
    state = torch.load(model.parent / "work" / "lm.pt", weights_only=True)
    assert state["step"] == 3
    run(model.parent, steps=4)
    state = torch.load(model.parent / "work" / "lm.pt", weights_only=True)
    assert state["step"] == 4
