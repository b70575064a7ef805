"""The whole recipe, tiny: from nothing to a model folder that the engine plays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen_lab.clip import Clip
from musicgen_lab.demo.contrast import Contrast
from musicgen_lab.demo.dataset import DatasetSize, load_tokens
from musicgen_lab.demo.lm_losses import LMBatch, batch_losses, codebook_losses
from musicgen_lab.demo.train import LICENSE, NAME, train
from musicgen_lab.demo.train_codec import CodecTraining
from musicgen_lab.demo.train_lm import LMTraining
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.reference_models import open_models
from musicgen_lab.request import GenerationRequest

SIZE = DatasetSize(short=12, short_s=2.0, long=2, long_s=30.0)
CODEC = CodecTraining(steps=1, clips=40, clip_s=2.0, batch=2)
BYTES_MAX = 12_000_000


def run(folder, steps):
    lm = LMTraining(steps=steps, batch_frames=200, text_steps=3, contrast_from=2, average_at=1)
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


def test_the_model_is_small_and_says_whose_it_is(model):
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    config = (model / "config.json").read_text()
    assert size <= BYTES_MAX
    assert NAME in config
    assert LICENSE in config


def test_the_engine_plays_it(model):
    request = GenerationRequest(prompt="jazzy piano solo", duration=1, seed=0)
    (clip,) = Engine.open(model, dtype="float32", slots=1).generate([request])
    assert isinstance(clip, Clip)
    assert clip.samples.shape == (1, 32_000)
    assert np.isfinite(clip.samples).all()


def test_audiocraft_itself_finds_the_trained_codes_likely(model):
    """The exported model is what was trained: its loss is that of training, in 16 bits."""
    lm, _ = open_models(model, torch.device("cpu"))
    clip = load_tokens(model.parent / "work" / "tokens")[-1]
    codes = torch.from_numpy(clip.codes[None].astype(np.int64))
    with torch.no_grad():
        losses = codebook_losses(lm, codes, ["piano"], torch.zeros(1, dtype=torch.long))
    assert losses.shape == (4,)
    assert (losses < 9).all()


def test_a_clip_tells_captions_apart_once_it_has_been_trained_to(model):
    lm, _ = open_models(model, torch.device("cpu"))
    lm = lm.float().requires_grad_(True)
    clips = load_tokens(model.parent / "work" / "tokens")[-4:]
    codes = torch.from_numpy(np.stack([clip.codes[:, :100] for clip in clips]).astype(np.int64))
    contrast = Contrast(own=["slow piano"] * 4, other=["fast piano"] * 4)
    batch = LMBatch(codes, ["slow", None, "slow", "slow"], torch.zeros(4, dtype=torch.long), None)
    optimizer = torch.optim.AdamW([p for p in lm.parameters() if p.requires_grad], lr=1e-3)
    told_apart = []
    for _ in range(6):
        losses, worse = batch_losses(lm, batch, contrast, noise=torch.zeros(4))
        told_apart.append(float(worse.detach()))
        optimizer.zero_grad()
        (losses.mean() + worse).backward()
        optimizer.step()

    assert told_apart[-1] < 0.7 * told_apart[0]
    with torch.no_grad():
        own, other = (
            codebook_losses(lm, codes, captions, batch.offsets).sum()
            for captions in (contrast.own, contrast.other)
        )
    assert own < other


def test_without_contrast_the_loss_is_the_cross_entropy(model):
    lm, _ = open_models(model, torch.device("cpu"))
    clip = load_tokens(model.parent / "work" / "tokens")[-1]
    codes, offsets = torch.from_numpy(clip.codes[None].astype(np.int64)), torch.zeros(1).long()
    with torch.no_grad():
        batch = LMBatch(codes, ["piano"], offsets, None)
        losses, worse = batch_losses(lm, batch, None, noise=torch.zeros(1))
        expected = codebook_losses(lm, codes, ["piano"], offsets)

    assert torch.allclose(losses, expected)
    assert worse == 0


def test_a_finished_run_is_not_done_again_and_a_longer_one_goes_on(model):
    state = torch.load(model.parent / "work" / "lm.pt", weights_only=True)
    assert state["step"] == 3
    run(model.parent, steps=4)
    state = torch.load(model.parent / "work" / "lm.pt", weights_only=True)
    assert state["step"] == 4
