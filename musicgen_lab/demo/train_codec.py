"""Make the demo's EnCodec: encoder and codebooks from a transform, the decoder by training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from musicgen_lab.demo.architecture import build_codec
from musicgen_lab.demo.checkpointing import load_state, save_state
from musicgen_lab.demo.codec_transform import (
    coefficients,
    project,
    set_codebooks,
    set_decoder,
    set_encoder,
    set_projection,
)
from musicgen_lab.demo.instruments import FRAME_SAMPLES, SAMPLE_RATE
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.synthesiser import synthesise

STFT_WINDOWS = (2048, 256)  # samples
SAVE_EVERY = 100  # steps
WARM_UP = 50  # steps


@dataclass(frozen=True)
class CodecTraining:
    """How the codec is made.

    Attributes
    ----------
    steps : int
        Of the optimiser, on the decoder alone.
    batch, segment_s : int, float
        Segments a step, and their length in seconds.
    learning_rate : float
        At its highest; over the last third it falls to a hundredth.
    clips, clip_s : int, float
        Synthesised clips to draw segments from, and their length in seconds.
    frames : int
        Frames for the principal components and for k-means.
    seed : int
    """

    steps: int = 1500
    batch: int = 8
    segment_s: float = 1.0
    learning_rate: float = 5e-4
    clips: int = 1200
    clip_s: float = 4.0
    frames: int = 80_000
    seed: int = 1


def initialise_codec(folder: Path, training: CodecTraining) -> Any:
    """Make the codec by computation alone, or read it where that has been done.

    Parameters
    ----------
    folder : Path
        Gets `codec_clips.npy` and `codec_initial.pt`.
    training : CodecTraining

    Returns
    -------
    audiocraft.models.EncodecModel
        In evaluation mode, on the CPU. Its codes are final.
    """
    torch.manual_seed(training.seed)
    codec = build_codec().eval()
    state = load_state(folder / "codec_initial.pt")
    if state is None:
        clips = _clips(folder / "codec_clips.npy", training)
        generator = torch.Generator().manual_seed(training.seed)
        set_encoder(codec)
        set_decoder(codec)
        frames = torch.cat(
            [coefficients(codec, _as_sound(clips[row : row + 1])) for row in range(len(clips))]
        )  # (N, 256)
        frames = frames[torch.randperm(len(frames), generator=generator)[: training.frames]]
        set_projection(codec, frames)
        latents = project(codec, frames)
        set_codebooks(codec, latents, generator)
        save_state(folder / "codec_initial.pt", codec.state_dict())
    else:
        codec.load_state_dict(state)
    return codec


def train_decoder(folder: Path, codec: Any, training: CodecTraining, device: torch.device) -> Any:
    """Train the decoder on the codes as they are, or go on where an earlier run stopped.

    Parameters
    ----------
    folder : Path
        Gets `codec_clips.npy` and `codec.pt`.
    codec : audiocraft.models.EncodecModel
        From `initialise_codec`.
    training : CodecTraining
    device : torch.device

    Returns
    -------
    audiocraft.models.EncodecModel
        The same one, in evaluation mode.
    """
    clips = _clips(folder / "codec_clips.npy", training)
    codec = codec.to(device).eval()
    decoder = codec.decoder
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    state = load_state(folder / "codec.pt")
    first = 0
    if state is not None:
        codec.load_state_dict(state["codec"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    progress = tqdm(range(first, training.steps), initial=first, total=training.steps, unit="step")
    for step in progress:
        rng = np.random.default_rng((training.seed, step))
        sound = _draw_segments(clips, training, rng).to(device)  # (B, 1, n)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _schedule(step, training.steps)
        with torch.no_grad():
            latents = codec.quantizer.decode(codec.quantizer.encode(codec.encoder(sound)))
        loss, snr_db = _loss(decoder(latents), sound)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            progress.set_postfix(loss=f"{float(loss.detach()):.3f}", snr_db=f"{snr_db:.2f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
            state = {"codec": codec.state_dict(), "optimizer": optimizer.state_dict()}
            save_state(folder / "codec.pt", {**state, "step": step + 1})
    return codec


def _clips(path: Path, training: CodecTraining) -> npt.NDArray[np.float16]:
    """Synthesise the clips to draw from, or read them: (clips, n)."""
    if not path.is_file():
        rng = np.random.default_rng(training.seed)
        clips = [
            synthesise(draw_piece(rng), training.clip_s, rng).astype(np.float16)
            for _ in tqdm(range(training.clips), desc="synthesising", unit="clip")
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.stack(clips))
        partial.replace(path)
    loaded: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
    return loaded


def _draw_segments(
    clips: npt.NDArray[np.float16], training: CodecTraining, rng: np.random.Generator
) -> Tensor:
    """Cut segments at whole frames, where notes start: (B, 1, n)."""
    length = round(training.segment_s * SAMPLE_RATE)
    segments = []
    for row in rng.integers(len(clips), size=training.batch):
        start = FRAME_SAMPLES * rng.integers((clips.shape[1] - length) // FRAME_SAMPLES + 1)
        segments.append(clips[row, start : start + length])
    return _as_sound(np.stack(segments))


def _as_sound(clips: npt.NDArray[np.float16]) -> Tensor:
    """Turn stored clips (B, n) into a batch (B, 1, n)."""
    return torch.from_numpy(clips.astype(np.float32)).unsqueeze(1)


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate's share of its highest: level for two thirds, then falling."""
    return max(0.01, min((step + 1) / WARM_UP, 1.0, (steps - step) / (steps / 3)))


def _loss(heard: Tensor, sound: Tensor) -> tuple[Tensor, float]:
    """Compare what comes back with what went in: waveform and spectra, relative to the level."""
    level = sound.abs().mean(dim=(1, 2)) + 1e-3  # (B,)
    waveform = ((heard - sound).abs().mean(dim=(1, 2)) / level).mean()
    spectrum = torch.stack([_compare_spectra(heard, sound, n) for n in STFT_WINDOWS]).mean()
    with torch.no_grad():
        ratio = sound.pow(2).sum((1, 2)) / (heard - sound).pow(2).sum((1, 2))
    return waveform + spectrum, float(10 * ratio.log10().mean())


def _compare_spectra(heard: Tensor, sound: Tensor, window: int) -> Tensor:
    """Return the distance of two magnitude spectrograms, linear and logarithmic."""
    hann = torch.hann_window(window, device=sound.device)
    ours, theirs = (
        torch.stft(x.squeeze(1), window, window // 4, window=hann, return_complex=True).abs()
        for x in (heard, sound)
    )  # (B, bins, frames)
    linear: Tensor = (ours - theirs).abs().mean(dim=(1, 2)) / (theirs.mean(dim=(1, 2)) + 1e-3)
    floor = 1e-3 * window**0.5  # what is 60 dB down need not be right
    logarithmic: Tensor = ((ours + floor).log() - (theirs + floor).log()).abs().mean()
    return linear.mean() + logarithmic
