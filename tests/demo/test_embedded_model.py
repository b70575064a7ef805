"""The embedded model: small, free, documented, and musical, by measures that take seconds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from musicgen_lab.analysis.levels import level_dbfs, silence_ratio
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import power_spectrogram
from musicgen_lab.demo.captions import TEMPO_WORDS
from musicgen_lab.demo.composition import MODES, TEMPI_BPM
from musicgen_lab.demo.descriptors import mode_evidence, refine_tempo
from musicgen_lab.demo.evaluate import EMBEDDED_FOLDER
from musicgen_lab.demo.measures import CONTRACT_PROMPTS, make_clips
from musicgen_lab.demo.model_card import CARD_FILE, FIGURES_FILE
from musicgen_lab.demo.train import LICENSE, NAME, RECIPE_VERSION, TRAINING_FILE
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.models.config import load_config
from musicgen_lab.request import GenerationRequest

BYTES_MAX = 12_000_000
DANCE, GUITAR, ORCHESTRA, PIANO = CONTRACT_PROMPTS
SEEDS = range(4)


@pytest.fixture(scope="module")
def engine():
    return Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", "float32", 16))


@pytest.fixture(scope="module")
def clips(engine):
    """Clips of 4 s of every prompt of the contract, over several seeds."""
    requests = [
        GenerationRequest(prompt=prompt, duration=4, seed=seed)
        for prompt in CONTRACT_PROMPTS
        for seed in SEEDS
    ]
    made = make_clips(engine, requests)
    return {p: [clip for clip in made if clip.request.prompt == p] for p in CONTRACT_PROMPTS}


def means(measure, clips):
    """The mean of a measure over seeds, for every prompt."""
    return {
        prompt: float(np.mean([measure(clip.samples) for clip in made]))
        for prompt, made in clips.items()
    }


def share_db(samples, low_hz, high_hz):
    """The energy of a band, in dB relative to the whole."""
    power, hz, _ = power_spectrogram(samples, 32_000, window_s=0.064, hop_s=0.032, pad=False)
    power = power.mean(axis=0)
    band = power[(hz >= low_hz) & (hz < high_hz)].sum()
    return float(10 * np.log10(band / power.sum()))


def test_dance_music_has_the_deepest_bass_and_the_brightest_drums(clips):
    bass = means(lambda samples: share_db(samples, 20, 130), clips)
    drums = means(lambda samples: share_db(samples, 6000, 16_000), clips)

    assert bass[DANCE] > max(bass[prompt] for prompt in clips if prompt != DANCE) + 3
    assert drums[DANCE] > max(drums[GUITAR], drums[ORCHESTRA]) + 3


def test_calm_is_quieter_than_epic_and_upbeat(clips):
    level = means(level_dbfs, clips)

    assert level[GUITAR] < min(level[DANCE], level[ORCHESTRA]) - 3


@pytest.mark.parametrize(("word", "bpm"), [(TEMPO_WORDS[bpm][0], bpm) for bpm in TEMPI_BPM])
def test_drums_beat_at_the_tempo_that_a_word_names(engine, word, bpm):
    """Any tempo within 10% is looked for, so four clips in ten would be right by chance."""
    prompt = f"{word} synth with drums"
    requests = [GenerationRequest(prompt=prompt, duration=8, seed=seed) for seed in range(8)]
    found = [refine_tempo(clip.samples[0], bpm) for clip in make_clips(engine, requests)]

    assert sum(abs(tempo / bpm - 1) <= 0.04 for tempo in found) >= 7


def test_major_and_minor_are_distinguished_by_their_triads(engine):
    requests = [
        GenerationRequest(prompt=f"{mode} piano chords", duration=4, seed=seed)
        for mode in MODES
        for seed in range(8)
    ]
    right = [
        (mode_evidence(clip.samples[0])[2] > 0) == ("major" in clip.request.prompt)
        for clip in make_clips(engine, requests)
    ]

    assert sum(right) >= 14


def test_it_sounds_within_100_ms_without_clipping_or_dc(clips):
    for made in clips.values():
        for clip in made:
            start = clip.samples[:, : clip.sample_rate // 10]
            assert level_dbfs(start) > -45
            assert (np.abs(clip.samples) > 1).mean() < 1e-3
            assert abs(clip.samples.mean()) < 0.01


def test_thirty_seconds_are_music_to_the_end(engine):
    requests = [
        GenerationRequest(prompt=prompt, duration=30, seed=0) for prompt in CONTRACT_PROMPTS
    ]
    for clip in make_clips(engine, requests):
        first, *_, last = np.array_split(clip.samples, 5, axis=1)
        assert silence_ratio(Sound(clip.samples, clip.sample_rate)) < 0.1, clip.request.prompt
        assert abs(level_dbfs(first) - level_dbfs(last)) < 12, clip.request.prompt


def test_bfloat16_makes_the_same_music_in_distribution(clips):
    engine = Engine.open(EMBEDDED_FOLDER, EngineOptions("cpu", "bfloat16", 16))
    requests = [clip.request for made in clips.values() for clip in made]
    halved = make_clips(engine, requests)

    for prompt, made in clips.items():
        theirs = [clip for clip in halved if clip.request.prompt == prompt]
        for measure in (level_dbfs, lambda samples: share_db(samples, 20, 250)):
            ours, others = (
                np.array([measure(clip.samples) for clip in each]) for each in (made, theirs)
            )
            error = np.sqrt((ours.var(ddof=1) + others.var(ddof=1)) / len(SEEDS))
            assert abs(ours.mean() - others.mean()) < 4 * error + 1, prompt


def test_it_is_small_and_free_and_says_what_made_it():
    files = [path for path in EMBEDDED_FOLDER.rglob("*") if path.is_file()]
    config = load_config(EMBEDDED_FOLDER)
    training = json.loads((EMBEDDED_FOLDER / TRAINING_FILE).read_text())

    assert sum(path.stat().st_size for path in files) <= BYTES_MAX
    assert (config.source.name, config.license, config.dtype) == (NAME, LICENSE, "float16")
    assert training["recipe_version"] == RECIPE_VERSION


def test_its_card_has_the_measured_figures():
    card = (EMBEDDED_FOLDER / CARD_FILE).read_text()
    figures = (EMBEDDED_FOLDER / FIGURES_FILE).read_text()

    assert figures.strip() in card
    assert f"Licence: {LICENSE}" in card
