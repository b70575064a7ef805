"""The demo's T5: a tokenizer with whole words and single letters, and a tiny encoder.

MusicGen's T5 was trained on language long before the music. This one is trained on captions first,
to tell from every token what the caption says of the piece, so that the language model finds the
attributes ready to be heard.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from musicgen_lab.demo.architecture import TEXT_DIM, TEXT_LAYERS
from musicgen_lab.demo.captions import vocabulary, write_caption
from musicgen_lab.demo.composition import ATTRIBUTES, Piece
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.models.library_noise import quiet

_WORD, _LETTER = -3.0, -8.0  # log-probabilities: a known word wins over its letters

_BATCH = 128  # captions a step
_SEED = 0


def build_text_encoder(folder: Path, *, steps: int) -> Path:
    """Write a T5 encoder, trained on captions, and its tokenizer into a folder.

    Known words are one token each, capitalised or not; a known word with an ending is the word and
    letters ("pianos"), and every other word is spelt in letters. So none is ever just "unknown".

    Parameters
    ----------
    folder : Path
        Appears when all is done.
    steps : int
        Of the training.

    Returns
    -------
    Path
        The folder.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        pieces = _pieces()
        tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
        config = transformers.T5Config(
            vocab_size=len(pieces),
            d_model=TEXT_DIM,
            d_kv=24,
            d_ff=2 * TEXT_DIM,
            num_layers=TEXT_LAYERS,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
        )
        encoder = transformers.T5EncoderModel(config)
        train_on_captions(encoder, tokenizer, steps=steps, seed=_SEED)
        partial = folder.with_name(folder.name + ".partial")
        tokenizer.save_pretrained(partial)
        encoder.save_pretrained(partial)
    partial.rename(folder)
    return folder


def train_on_captions(encoder: Any, tokenizer: Any, *, steps: int, seed: int) -> list[float]:
    """Train an encoder so that every token tells what its caption says of the piece.

    Parameters
    ----------
    encoder : transformers.T5EncoderModel
    tokenizer : transformers.T5Tokenizer
    steps : int
    seed : int

    Returns
    -------
    list of float
        The losses: nats per caption, summed over `ATTRIBUTES`. Attributes that a caption does not
        name cannot be predicted, so the loss stays above 0.
    """
    rng = np.random.default_rng(seed)
    sizes = [len(values) for values in ATTRIBUTES.values()]
    heads = nn.Linear(TEXT_DIM, sum(sizes))
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
    losses = []
    for _ in range(steps):
        pieces = [draw_piece(rng) for _ in range(_BATCH)]
        batch = tokenizer(
            [write_caption(piece, rng) for piece in pieces], return_tensors="pt", padding=True
        )
        heard = batch["attention_mask"].bool()
        scores = heads(encoder(**batch).last_hidden_state)[heard].split(sizes, dim=-1)
        answers = _answers(pieces)[:, None].expand(*heard.shape, len(sizes))[heard]
        loss = torch.stack(
            [F.cross_entropy(logits, answers[:, i]) for i, logits in enumerate(scores)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _answers(pieces: list[Piece]) -> Tensor:
    """Return (pieces, attributes) indices of each piece's values."""
    return torch.tensor(
        [
            [values.index(getattr(piece, name)) for name, values in ATTRIBUTES.items()]
            for piece in pieces
        ]
    )


def _pieces() -> list[tuple[str, float]]:
    """Return the tokenizer's vocabulary with log-probabilities, special tokens first."""
    words = vocabulary()
    pieces = [f"▁{word}" for word in [*words, *(word.capitalize() for word in words)]]
    letters = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    single = [("▁", _LETTER / 2), *((letter, _LETTER) for letter in letters)]
    whole = [(word, _WORD) for word in dict.fromkeys(pieces) if len(word) > 1]
    return special + single + whole
