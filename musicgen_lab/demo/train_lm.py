"""Train the demo's language model on tokens and captions, together with its T5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from musicgen_lab.demo.architecture import CARD, CODEBOOKS, LM_CONFIG, build_lm
from musicgen_lab.demo.captions import write_caption
from musicgen_lab.demo.checkpointing import load_state, save_state
from musicgen_lab.demo.dataset import TokenClip
from musicgen_lab.demo.lm_losses import codebook_losses
from musicgen_lab.demo.text import build_text_encoder

POOL_BATCHES = 8  # batches that are drawn together, so that captions of like length share one
SAVE_EVERY = 100  # steps
WARM_UP = 100  # steps
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
        Of the clips, how many have a rate between these instead, at most 1, so that the caption has
        to tell what can hardly be heard. None over the last third of the steps: a model that knows
        deafness falls into it for good when it hears something odd of its own.
    deaf_spans : tuple of (int, int)
        Steps over which nothing is heard at all, and only starts are told: a caption then matters
        in every token. Once the history is heard it matters in the few that decide a tempo or a
        mode, from which nothing is learnt in thousands of steps. The first span teaches what many
        tokens depend on, the second, when the model knows the music, the slow tempi as well.
    text_steps : int
        Of the text encoder's own training on captions.
    learning_rate : float
        At its highest; over the last third it falls to a hundredth.
    codebook_weights : tuple of float
        Of the losses.
    seed : int
    """

    steps: int = 16_500
    batch_frames: int = 3000
    long_share: float = 0.18
    moved_share: float = 0.3
    start_share: float = 0.5
    start_frames: int = 150
    noise_max: float = 0.2
    deaf_share: float = 0.25
    deaf_noise: tuple[float, float] = (0.2, 1.3)
    deaf_spans: tuple[tuple[int, int], ...] = ((0, 1000), (8100, 10_500))
    text_steps: int = 1500
    learning_rate: float = 2e-3
    codebook_weights: tuple[float, ...] = (1.4, 1.1, 0.8, 0.7)
    seed: int = 3


@dataclass(frozen=True)
class LMBatch:
    """Clips of one length with their captions.

    Attributes
    ----------
    codes : Tensor
        (B, K, T)
    captions : list of str or None
        None where the caption is dropped, for classifier-free guidance.
    offsets : Tensor
        (B,) position of the first step.
    """

    codes: Tensor
    captions: list[str | None]
    offsets: Tensor


@torch.no_grad()
def start_from_codebooks(lm: Any, codec: Any) -> None:
    """Initialise similar embeddings and output weights for codes that sound similar.

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
        columns = slice(k * share, (k + 1) * share)
        for weight in (lm.emb[k].weight[:CARD], lm.linears[k].weight):
            weight.mul_(0.3)
            weight[:, columns] += codes


def train_lm(
    folder: Path, clips: list[TokenClip], codec: Any, training: LMTraining, device: torch.device
) -> Any:
    """Train the language model, or go on where an earlier run stopped.

    Parameters
    ----------
    folder : Path
        Gets `text_encoder/` and `lm.pt`.
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
        rates = noise_rates(len(batch.captions), training, step).to(device)
        losses = codebook_losses(
            lm, batch.codes.to(device), batch.captions, batch.offsets, noise=rates
        )
        weights = torch.tensor(training.codebook_weights, device=device)
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            progress.set_postfix_str(" ".join(f"{loss:.2f}" for loss in losses.tolist()))
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
            save_state(
                folder / "lm.pt",
                {"lm": lm.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1},
            )
    return lm.eval()


def is_deaf(training: LMTraining, step: int) -> bool:
    """Return whether a step is one without audio context."""
    return any(first <= step < last for first, last in training.deaf_spans)


def deaf_weights(clips: list[TokenClip]) -> npt.NDArray[np.float64]:
    """Return the sampling weight of each clip in steps without audio context.

    Slow music has few notes that could tell its tempo; its weight is the square of its beat.

    Parameters
    ----------
    clips : list of TokenClip

    Returns
    -------
    array
        (clips,) adding up to 1.
    """
    beats = np.array([clip.piece.beat_frames for clip in clips], dtype=np.float64)
    return np.asarray(beats**2 / (beats**2).sum())


def noise_rates(count: int, training: LMTraining, step: int) -> Tensor:
    """Draw the share of each clip's input tokens that are replaced.

    Parameters
    ----------
    count : int
        Clips.
    training : LMTraining
    step : int

    Returns
    -------
    Tensor
        (count,) from 0 to 1.
    """
    if is_deaf(training, step):
        return torch.ones(count)
    low, high = training.deaf_noise
    few, many = torch.rand(count) * training.noise_max, low + torch.rand(count) * (high - low)
    hears = step >= training.steps * 2 / 3
    deaf = torch.rand(count) < (0.0 if hears else training.deaf_share)
    return torch.where(deaf, many, few).clamp(max=1.0)


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
    slow_first = deaf_weights(short) if short else None
    dropout = LM_CONFIG["classifier_free_guidance"]["training_dropout"]
    pool = first // POOL_BATCHES
    skip = first % POOL_BATCHES
    while True:
        rng = np.random.default_rng((training.seed, pool))
        deaf = bool(short) and is_deaf(training, (pool + 1) * POOL_BATCHES - 1)
        wants_long = rng.random() < training.long_share and not deaf
        source = long if not short or (long and wants_long) else short
        frames = source[0].codes.shape[1]
        if deaf or (source is short and rng.random() < training.start_share):
            frames = min(frames, training.start_frames)
        size = max(1, training.batch_frames // frames)
        weights = slow_first if deaf else None
        drawn = [source[i] for i in rng.choice(len(source), size * POOL_BATCHES, p=weights)]
        captions = [write_caption(clip.piece, rng) for clip in drawn]
        lengths = [len(ids) for ids in tokenizer(captions)["input_ids"]]
        order = np.argsort(lengths, kind="stable").reshape(POOL_BATCHES, size)
        for rows in order[rng.permutation(POOL_BATCHES)][skip:]:
            codes = np.stack([drawn[row].codes[:, :frames] for row in rows]).astype(np.int64)
            latest = FRAMES_MAX - codes.shape[2]
            bars = np.array([drawn[row].piece.bar_frames for row in rows])
            moved = (rng.random(size) < training.moved_share) & (not deaf)
            heard = [None if rng.random() < dropout else captions[row] for row in rows]
            offsets = torch.from_numpy(moved * bars * rng.integers(latest // bars + 1))
            yield LMBatch(torch.from_numpy(codes), heard, offsets)
        pool, skip = pool + 1, 0
