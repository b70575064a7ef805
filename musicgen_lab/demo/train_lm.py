"""Train the demo's language model on tokens and captions, together with its T5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from musicgen_lab.demo.architecture import CARD, CODEBOOKS, LM_CONFIG, build_lm
from musicgen_lab.demo.captions import write_caption
from musicgen_lab.demo.checkpointing import load_state, save_state
from musicgen_lab.demo.contrast import draw_contrast
from musicgen_lab.demo.dataset import TokenClip
from musicgen_lab.demo.lm_losses import LMBatch, batch_losses
from musicgen_lab.demo.text import build_text_encoder

POOL_BATCHES = 8  # batches that are drawn together, so that captions of like length share one
SAVE_EVERY = 100  # steps
WARM_UP = 100  # steps
NOISE_RISE = 1000  # steps until the noise has its full rate
FRAMES_MAX = 1500


@dataclass(frozen=True)
class LMTraining:
    """How the language model is trained.

    Attributes
    ----------
    steps : int
        Of the optimiser.
    batch_frames : int
        Frames of music a step, shared by as many clips as fit.
    long_share : float
        Of the pools, how many are of 30 s clips.
    moved_share : float
        Of the short clips, how many start at a random later bar, so that all positions up to 30 s
        are known well, and a position always tells where in the bar the music is.
    start_share, start_frames : float, int
        Of the pools of short clips, how many hear only the first so many frames: there, nothing but
        the caption tells what is to come.
    noise_max : float
        Input tokens are replaced at random at a rate from 0 up to this. Without it, samples drift
        away from the prompt.
    deaf_share, deaf_noise : float, (float, float)
        Of the clips, how many have a rate between these instead, so that the caption has to tell
        what can hardly be heard.
    contrast_from, contrast_weight : int, float
        From this step on, in short pools that hear only the start, each clip must also be likelier
        with a caption of its own than with one that differs in one attribute. A tempo or a mode is
        decided by a few tokens, which a mean over all of them hardly hears.
    average_at : int
        The weights after this step, averaged with the last, are the model's: they follow captions
        better than either.
    text_steps : int
        Of the text encoder's own training on captions.
    learning_rate : float
        At its highest; over the last third it falls to a hundredth.
    codebook_weights : tuple of float
        Of the losses.
    seed : int
    """

    steps: int = 8000
    batch_frames: int = 3000
    long_share: float = 0.18
    moved_share: float = 0.3
    start_share: float = 0.5
    start_frames: int = 100
    noise_max: float = 0.2
    deaf_share: float = 0.25
    deaf_noise: tuple[float, float] = (0.2, 0.9)
    contrast_from: int = 4500
    contrast_weight: float = 0.5
    average_at: int = 5300
    text_steps: int = 1500
    learning_rate: float = 2e-3
    codebook_weights: tuple[float, ...] = (1.4, 1.1, 0.8, 0.7)
    seed: int = 3


@torch.no_grad()
def start_from_codebooks(lm: Any, codec: Any) -> None:
    """Give codes that sound alike embeddings and output weights that are alike.

    From random ones, a language model spends its first hundreds of steps on finding out what the
    codebooks say already. Each codebook gets a part of the width of its own, as large as its share
    of the width; the principal components of the latents come first, so little is lost.

    Parameters
    ----------
    lm : audiocraft.models.LMModel
    codec : audiocraft.models.EncodecModel
    """
    share = lm.dim // CODEBOOKS
    for k, layer in enumerate(codec.quantizer.vq.layers[:CODEBOOKS]):
        codes = layer._codebook.embed[:, :share]  # (card, share)
        codes = codes - codes.mean(dim=0)
        # Half way between equal weight for loud and quiet codes and that by amplitude.
        codes = codes / codes.norm(dim=1, keepdim=True).clamp(min=1e-4).sqrt()
        codes = codes / codes.norm(dim=1).mean()
        place = slice(k * share, (k + 1) * share)
        for weight in (lm.emb[k].weight[:CARD], lm.linears[k].weight):
            weight.mul_(0.3)
            weight[:, place] += codes


def train_lm(
    folder: Path, clips: list[TokenClip], codec: Any, training: LMTraining, device: torch.device
) -> Any:
    """Train the language model, or go on where an earlier run stopped.

    Parameters
    ----------
    folder : Path
        Gets `text_encoder/`, `lm.pt` and `lm_average.pt`.
    clips : list of TokenClip
    codec : audiocraft.models.EncodecModel
        Whose codebooks the language model starts from.
    training : LMTraining
    device : torch.device

    Returns
    -------
    audiocraft.models.LMModel
        In evaluation mode.
    """
    text_encoder = folder / "text_encoder"
    if not text_encoder.is_dir():
        build_text_encoder(text_encoder, steps=training.text_steps)
    torch.manual_seed(training.seed)
    lm = build_lm(text_encoder)
    start_from_codebooks(lm, codec)
    lm = lm.to(device).train()
    optimizer = torch.optim.AdamW(
        lm.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.02
    )
    state = load_state(folder / "lm.pt")
    first = 0
    if state is not None:
        lm.load_state_dict(state["lm"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    batches = _batches(clips, training, first, _tokenizer(lm))
    progress = tqdm(range(first, training.steps), initial=first, total=training.steps, unit="step")
    for step, batch in zip(progress, batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _schedule(step, training.steps)
        torch.manual_seed(training.seed * 1_000_000 + step)  # a resumed run draws the same noise
        rates = _noise_rates(len(batch.captions), training, step).to(device)
        contrast = batch.contrast if step >= training.contrast_from else None
        losses, told_apart = batch_losses(lm, batch, contrast, rates)
        weights = torch.tensor(training.codebook_weights, device=device)
        loss = (losses * weights).sum() / weights.sum() + training.contrast_weight * told_apart
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            shown = [*losses.tolist(), float(told_apart.detach())]
            progress.set_postfix_str(" ".join(f"{loss:.2f}" for loss in shown))
        if step + 1 == training.average_at:
            save_state(folder / "lm_average.pt", lm.state_dict())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
            save_state(
                folder / "lm.pt",
                {"lm": lm.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
            )
    earlier = load_state(folder / "lm_average.pt")
    if earlier is not None:
        lm.load_state_dict(
            {name: (earlier[name] + last) / 2 for name, last in lm.state_dict().items()}
        )
    return lm.eval()


def _noise_rates(count: int, training: LMTraining, step: int) -> Tensor:
    """Draw the share of each clip's input tokens that are replaced, rising over the first steps."""
    low, high = training.deaf_noise
    few, many = torch.rand(count) * training.noise_max, low + torch.rand(count) * (high - low)
    deaf = torch.rand(count) < training.deaf_share
    return torch.where(deaf, many, few) * min(1.0, step / NOISE_RISE)


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate's share of its highest.

    It is level for two thirds, so that a run can be prolonged by raising its number of steps.
    """
    return max(0.01, min((step + 1) / WARM_UP, 1.0, (steps - step) / (steps / 3)))


def _tokenizer(lm: Any) -> Any:
    return lm.condition_provider.conditioners["description"].t5_tokenizer


def _batches(
    clips: list[TokenClip], training: LMTraining, first: int, tokenizer: Any
) -> Iterator[LMBatch]:
    """Draw batches without end, from a given step on, the same ones whenever they are drawn."""
    long = [clip for clip in clips if clip.codes.shape[1] >= FRAMES_MAX]
    short = [clip for clip in clips if clip.codes.shape[1] < FRAMES_MAX]
    dropout = LM_CONFIG["classifier_free_guidance"]["training_dropout"]
    pool = first // POOL_BATCHES
    skip = first % POOL_BATCHES
    while True:
        rng = np.random.default_rng((training.seed, pool))
        source = long if not short or (long and rng.random() < training.long_share) else short
        frames = source[0].codes.shape[1]
        if source is short and rng.random() < training.start_share:
            frames = min(frames, training.start_frames)
        size = max(1, training.batch_frames // frames)
        drawn = [source[i] for i in rng.integers(len(source), size=size * POOL_BATCHES)]
        captions = [write_caption(clip.piece, rng) for clip in drawn]
        lengths = [len(ids) for ids in tokenizer(captions)["input_ids"]]
        order = np.argsort(lengths, kind="stable").reshape(POOL_BATCHES, size)
        for rows in order[rng.permutation(POOL_BATCHES)][skip:]:
            codes = np.stack([drawn[row].codes[:, :frames] for row in rows]).astype(np.int64)
            latest = FRAMES_MAX - codes.shape[2]
            bars = np.array([drawn[row].piece.bar_frames for row in rows])
            moved = rng.random(size) < training.moved_share
            heard = [None if rng.random() < dropout else captions[row] for row in rows]
            offsets = torch.from_numpy(moved * bars * rng.integers(latest // bars + 1))
            pieces = [drawn[row].piece for row in rows]
            contrast = draw_contrast(pieces, rng) if frames == training.start_frames else None
            yield LMBatch(torch.from_numpy(codes), heard, offsets, contrast)
        pool, skip = pool + 1, 0
