"""Captions are true, and the tokenizer leaves no word without letters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from musicgen_lab.demo.architecture import TEXT_DIM
from musicgen_lab.demo.captions import (
    DRUM_WORDS,
    INSTRUMENT_WORDS,
    MODE_WORDS,
    vocabulary,
    write_caption,
    write_prompt,
)
from musicgen_lab.demo.composition import ATTRIBUTES, Piece
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.text import build_text_encoder, train_on_captions

CONTRACT_PROMPTS = [
    "upbeat electronic dance music with heavy bass",
    "calm acoustic guitar melody",
    "epic orchestral music",
    "jazzy piano solo",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = build_text_encoder(tmp_path_factory.mktemp("t5") / "encoder", steps=1)
    return AutoTokenizer.from_pretrained(folder)


def test_captions_never_name_another_mode_or_drums_that_are_not_there():
    rng = np.random.default_rng(0)
    for _ in range(500):
        piece = draw_piece(rng)
        words = write_caption(piece, rng).lower()
        other = "minor" if piece.mode == "major" else "major"
        assert not set(MODE_WORDS[other]) & set(words.split())
        if not piece.drums:
            assert not any(f"with {word}" in words for word in DRUM_WORDS)


def test_a_prompt_names_what_it_is_told_to_and_nothing_else():
    piece = Piece("guitar", 75, "minor", "solo", True, False, False, True)
    assert write_prompt(piece, ("tempo_bpm", "instrument")) == "slow guitar"
    assert write_prompt(piece, ("mode", "instrument", "drums")) == "minor guitar with drums"


@pytest.mark.parametrize("prompt", CONTRACT_PROMPTS)
def test_every_word_of_the_contracts_prompts_is_known(prompt):
    assert set(prompt.split()) <= set(vocabulary())


def test_known_words_are_one_token_in_lower_case_and_capitalised(tokenizer):
    assert tokenizer.tokenize("Piano piano") == ["▁Piano", "▁piano"]


def test_a_word_with_an_ending_keeps_the_word(tokenizer):
    assert tokenizer.tokenize("guitars")[0] == "▁guitar"


def test_unknown_words_are_spelt_and_leave_the_others_as_they_are(tokenizer):
    pieces = tokenizer.tokenize("zorkian piano")
    assert pieces[-1] == "▁piano"
    assert "".join(pieces[:-1]).strip("▁") == "zorkian"
    assert tokenizer.unk_token not in pieces


def test_all_caption_words_but_the_made_up_ones_are_in_the_vocabulary():
    known = {word.lower() for word in vocabulary()}
    for words in INSTRUMENT_WORDS.values():
        assert {part for word in words for part in word.split()} <= known


def test_the_text_encoder_learns_to_tell_what_a_caption_says(tokenizer):
    config = T5Config(
        vocab_size=len(tokenizer), d_model=TEXT_DIM, d_kv=24, d_ff=96, num_layers=2, num_heads=4
    )
    torch.manual_seed(0)
    losses = train_on_captions(T5EncoderModel(config), tokenizer, steps=60, seed=0)

    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_what_captions_are_asked_about_are_all_the_values_of_pieces():
    rng = np.random.default_rng(0)
    for _ in range(200):
        piece = draw_piece(rng)
        assert all(getattr(piece, name) in values for name, values in ATTRIBUTES.items())
