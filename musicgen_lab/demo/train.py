"""Make the demo model from nothing: `python -m musicgen_lab.demo.train WORK_FOLDER MODEL_FOLDER`.

Synthesise music, make the codec, turn the music into tokens, train the codec's decoder and the
language model, and write the model folder that the engine opens. Everything is kept in the work
folder: run the command again and it goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file

from musicgen_lab.bench.table import describe_machine
from musicgen_lab.conversion.convert import convert
from musicgen_lab.demo.architecture import CODEC_CONFIG, LM_CONFIG, save_audiocraft
from musicgen_lab.demo.dataset import DatasetSize, load_tokens, synthesise_shards, tokenise
from musicgen_lab.demo.train_codec import CodecTraining, initialise_codec, train_decoder
from musicgen_lab.demo.train_lm import LMTraining, train_lm
from musicgen_lab.engine.device import choose_device
from musicgen_lab.models.checksums import write_checksums
from musicgen_lab.models.config import CODEC_FOLDER, TEXT_ENCODER_FOLDER, WEIGHTS_FILE
from musicgen_lab.runs.atomic_io import write_atomically

RECIPE_VERSION = 4
NAME = f"musicgen-lab-demo-{RECIPE_VERSION}"
LICENSE = "MIT"
TRAINING_FILE = "training.json"  # beside the weights: what made them


def train(
    work: Path,
    model: Path,
    device: torch.device,
    *,
    size: DatasetSize,
    codec_training: CodecTraining,
    lm_training: LMTraining,
) -> Path:
    """Make the demo model, or go on where an earlier run stopped.

    Parameters
    ----------
    work : Path
        Keeps clips, tokens and training states: some 3 GB.
    model : Path
        The model folder to write.
    device : torch.device
    size : DatasetSize
    codec_training : CodecTraining
    lm_training : LMTraining

    Returns
    -------
    Path
        `model`.
    """
    work.mkdir(parents=True, exist_ok=True)
    codec = initialise_codec(work, codec_training).to(device)
    tokenise(synthesise_shards(work / "clips", size), codec, work / "tokens", device)
    codec = train_decoder(work, codec, codec_training, device)
    lm = train_lm(work, load_tokens(work / "tokens"), codec, lm_training, device)
    export(work, model, codec.cpu(), lm.cpu())
    facts = {
        "recipe_version": RECIPE_VERSION,
        "machine": describe_machine(),
        "codec_steps": codec_training.steps,
        "lm_steps": lm_training.steps,
    }
    write_atomically(model / TRAINING_FILE, (json.dumps(facts, indent=2) + "\n").encode())
    write_checksums(model)  # of the halved weights, and of what was written beside them
    return model


def export(work: Path, model: Path, codec: Any, lm: Any) -> Path:
    """Write trained parts as a model folder in 16 bits.

    Parameters
    ----------
    work : Path
        Gets `checkpoint/`, the same model in audiocraft's format.
    model : Path
    codec : audiocraft.models.EncodecModel
    lm : audiocraft.models.LMModel

    Returns
    -------
    Path
        `model`.
    """
    checkpoint = work / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_audiocraft(checkpoint / "compression_state_dict.bin", CODEC_CONFIG, codec)
    save_audiocraft(checkpoint / "state_dict.bin", LM_CONFIG, lm)
    shutil.copytree(work / "text_encoder", checkpoint / TEXT_ENCODER_FOLDER, dirs_exist_ok=True)
    convert(checkpoint, model, name=NAME, license=LICENSE)
    # The engine computes these parts in float32 from whatever they are stored in.
    _halve(model / CODEC_FOLDER / WEIGHTS_FILE)
    _halve(model / TEXT_ENCODER_FOLDER / WEIGHTS_FILE)
    return model


def _halve(path: Path) -> None:
    """Store weights in 16 bits."""
    tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
    half = path.with_suffix(".half")
    save_file(tensors, half, metadata={"format": "pt"})
    write_atomically(path, half.read_bytes())
    half.unlink()


@click.command(help=__doc__)
@click.argument("work", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", default="auto", help="cpu, cuda or auto.")
@click.option("--lm-steps", default=LMTraining.steps, help="Steps of the language model.")
@click.option("--codec-steps", default=CodecTraining.steps, help="Steps of the codec's decoder.")
@click.option("--threads", type=int, help="CPU threads; all by default.")
def main(
    work: Path, model: Path, device: str, lm_steps: int, codec_steps: int, threads: int | None
) -> None:
    """Run the whole recipe."""
    if threads is not None:
        torch.set_num_threads(threads)
    train(
        work,
        model,
        choose_device(device),
        size=DatasetSize(),
        codec_training=CodecTraining(steps=codec_steps),
        lm_training=LMTraining(steps=lm_steps),
    )


if __name__ == "__main__":
    main()
