"""The demo's T5: a tokenizer with whole words and single letters, and a tiny encoder."""

from __future__ import annotations

import string
from pathlib import Path

import torch
import transformers

from musicgen_lab.demo.architecture import TEXT_DIM, TEXT_LAYERS
from musicgen_lab.demo.captions import vocabulary
from musicgen_lab.engine.quiet import quiet

_WORD, _LETTER = -3.0, -8.0  # log-probabilities: a known word wins over its letters


def build_text_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Write an untrained T5 encoder and its tokenizer into a folder.

    Known words are one token each, capitalised or not; a known word with an ending is the word and
    letters ("pianos"), and every other word is spelt in letters. So none is ever just "unknown".

    Parameters
    ----------
    folder : Path
    seed : int

    Returns
    -------
    Path
        The folder.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pieces = _pieces()
        transformers.T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)
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
        transformers.T5EncoderModel(config).save_pretrained(folder)
    return folder


def _pieces() -> list[tuple[str, float]]:
    """Return the tokenizer's vocabulary with log-probabilities, special tokens first."""
    words = vocabulary()
    known = [f"▁{word}" for word in [*words, *(word.capitalize() for word in words)]]
    letters = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    single = [("▁", _LETTER / 2), *((letter, _LETTER) for letter in letters)]
    whole = [(word, _WORD) for word in dict.fromkeys(known) if len(word) > 1]
    return special + single + whole
