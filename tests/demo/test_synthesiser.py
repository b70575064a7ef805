"""The synthesiser makes clean, reproducible music with the requested attributes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen_lab.analysis.features import measure
from musicgen_lab.analysis.levels import level_dbfs
from musicgen_lab.demo.composition import INSTRUMENTS, TEMPI_BPM, Piece, compose
from musicgen_lab.demo.descriptors import mode_evidence, refine_tempo
from musicgen_lab.demo.instruments import FRAME_SAMPLES, SAMPLE_RATE
from musicgen_lab.demo.pieces import GENRES, draw_piece
from musicgen_lab.demo.synthesiser import synthesise

PIECE = Piece("piano", 100, "major", "chords", False, False, True, True)


def play(piece, seed=0, duration_s=3.0):
    return synthesise(piece, duration_s, np.random.default_rng(seed))


def test_the_same_piece_and_seed_sound_the_same():
    assert np.array_equal(play(PIECE, 5), play(PIECE, 5))
    assert not np.array_equal(play(PIECE, 5), play(PIECE, 6))


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_every_instrument_starts_at_once_stays_in_full_scale_and_has_no_dc(instrument):
    piece = replace(PIECE, instrument=instrument, drums=True, bass=True)
    sound = play(piece)
    assert np.abs(sound).max() <= 1.0
    assert abs(sound.mean()) < 0.005
    assert np.abs(sound[: SAMPLE_RATE // 10]).max() > 0.02, "music starts within 100 ms"


def test_music_goes_on_to_the_end_of_30_seconds():
    sound = play(PIECE, duration_s=30.0)
    fifths = [level_dbfs(part[None]) for part in np.array_split(sound, 5)]
    assert max(fifths) - min(fifths) < 3.0


def test_bright_is_brighter_and_loud_is_louder():
    dark, quiet = replace(PIECE, bright=False), replace(PIECE, loud=False)
    bright_hz, dark_hz = (
        measure(play(piece)[None], SAMPLE_RATE)["spectral_centroid_hz"] for piece in (PIECE, dark)
    )
    assert bright_hz > 1.3 * dark_hz
    assert level_dbfs(play(PIECE)[None]) - level_dbfs(play(quiet)[None]) == pytest.approx(
        8, abs=0.2
    )


@pytest.mark.parametrize("tempo_bpm", TEMPI_BPM)
def test_tempo_is_what_it_says(tempo_bpm):
    piece = replace(PIECE, tempo_bpm=tempo_bpm, drums=True)
    assert refine_tempo(play(piece, duration_s=8.0), tempo_bpm) == pytest.approx(
        tempo_bpm, rel=0.02
    )


@pytest.mark.parametrize("texture", ["chords", "arpeggio", "solo"])
def test_major_and_minor_are_distinguished_by_their_triads(texture):
    told = [
        (mode_evidence(play(replace(PIECE, mode=mode, texture=texture), seed, 4.8))[2] > 0)
        == (mode == "major")
        for mode in ("major", "minor")
        for seed in range(10)
    ]
    assert np.mean(told) >= (0.6 if texture == "solo" else 0.9)


def test_notes_start_on_codec_frames_within_the_clip():
    notes = compose(PIECE, 100, np.random.default_rng(0))
    assert notes[0].frame == 0
    assert all(note.frame < 100 for note in notes)
    assert SAMPLE_RATE % FRAME_SAMPLES == 0


def test_training_pieces_are_never_the_held_out_combinations():
    rng = np.random.default_rng(0)
    assert not any(draw_piece(rng).held_out for _ in range(500))
    assert all(draw_piece(rng, held_out=True).held_out for _ in range(50))


def test_a_genre_keeps_its_promises():
    rng = np.random.default_rng(0)
    for piece in (draw_piece(rng) for _ in range(500)):
        for name, allowed in GENRES.get(piece.genre or "", {}).items():
            assert getattr(piece, name) in allowed
