"""The measures of the demo model: adherence, diversity, tempo, mode, long clips and speed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from musicgen_lab.analysis.distances import mel_cepstral_distances, signature
from musicgen_lab.analysis.levels import level_dbfs, silence_ratio
from musicgen_lab.analysis.sound import Sound
from musicgen_lab.analysis.spectrogram import mel_spectrogram_db
from musicgen_lab.clip import Clip, Failure
from musicgen_lab.demo.captions import write_caption, write_prompt
from musicgen_lab.demo.classifiers import HEARD, AttributeClassifiers
from musicgen_lab.demo.composition import Piece
from musicgen_lab.demo.descriptors import mode_evidence, refine_tempo
from musicgen_lab.demo.lm_losses import codebook_losses
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.synthesiser import synthesise
from musicgen_lab.engine.engine import Engine
from musicgen_lab.request import GenerationRequest

DURATION_S = 4.0
CONTRACT_PROMPTS = (
    "upbeat electronic dance music with heavy bass",
    "calm acoustic guitar melody",
    "epic orchestral music",
    "jazzy piano solo",
)
SPEED_CLIPS = 25


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    Attributes
    ----------
    mean, standard_error : float
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """Estimate from independent values."""
        array = np.array(list(values), dtype=float)
        spread = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
        return cls(float(array.mean()), float(spread))


@dataclass(frozen=True)
class Question:
    """A prompt and the attributes that a clip for it must have.

    Attributes
    ----------
    prompt : str
    piece : Piece
    named : tuple of str
        The attributes that the prompt names.
    """

    prompt: str
    piece: Piece
    named: tuple[str, ...]


def draw_questions(
    count: int, seed: int, counted: Sequence[str], *, held_out: bool = False
) -> list[Question]:
    """Draw prompts that name the instrument, the tempo, the mode and one attribute more."""
    rng = np.random.default_rng(seed)
    questions = []
    for _ in range(count):
        piece = draw_piece(rng, held_out=held_out)
        always = [name for name in ("instrument", "tempo_bpm", "mode") if name in counted]
        others = [name for name in counted if name not in always]
        named = (*always, str(rng.choice(others)))
        questions.append(Question(write_prompt(piece, named), piece, named))
    return questions


def measure_adherence(
    engine: Engine,
    classifiers: AttributeClassifiers,
    questions: Sequence[Question],
    *,
    temperature: float,
    cfg_coef: float,
) -> npt.NDArray[np.float64]:
    """Return the share of named attributes that are recognised, one value per prompt."""
    requests = [
        GenerationRequest(
            prompt=question.prompt,
            duration=DURATION_S,
            temperature=temperature,
            cfg_coef=cfg_coef,
            seed=index,
        )
        for index, question in enumerate(questions)
    ]
    shares = []
    for question, clip in zip(questions, make_clips(engine, requests), strict=True):
        heard = classifiers.recognise(clip.samples[0])
        hits = [heard[name] == getattr(question.piece, name) for name in question.named]
        shares.append(float(np.mean(hits)))
    return np.array(shares)


@torch.no_grad()
def measure_losses(lm: Any, codec: Any) -> dict[str, Any]:
    """Measure the cross-entropy on 40 new clips, with their own captions and with others'.

    Parameters
    ----------
    lm : audiocraft.models.LMModel
    codec : audiocraft.models.CompressionModel
        With its encoder.

    Returns
    -------
    dict
        Nats per token of every codebook.
    """
    rng = np.random.default_rng(500)
    pieces = [draw_piece(rng) for _ in range(40)]
    sound = np.stack([synthesise(piece, DURATION_S, rng) for piece in pieces])
    codes, _ = codec.encode(torch.from_numpy(sound).unsqueeze(1))  # (B, K, T)
    captions: list[str | None] = [write_caption(piece, rng) for piece in pieces]
    offsets = torch.zeros(len(pieces), dtype=torch.long)
    return {
        name: [round(loss, 3) for loss in codebook_losses(lm, codes, each, offsets).tolist()]
        for name, each in (("own caption", captions), ("another's", captions[1:] + captions[:1]))
    }


def measure_each_attribute(engine: Engine, classifiers: AttributeClassifiers) -> dict[str, Any]:
    """Measure how often each attribute is recognised if prompts name all of them, at cfg_coef 3."""
    rng = np.random.default_rng(600)
    pieces = [draw_piece(rng) for _ in range(60)]
    recognised = [
        (piece, classifiers.recognise(clip.samples[0]))
        for piece, clip in _answer(engine, pieces, tuple(HEARD), duration_s=DURATION_S)
    ]
    return {
        f"{name}, one of {len(values)}": Estimate.of(
            attributes[name] == getattr(piece, name) for piece, attributes in recognised
        )
        for name, values in HEARD.items()
    }


def measure_diversity(engine: Engine) -> dict[str, Any]:
    """Measure the distances between clips of one prompt, and how much each repeats itself.

    The distance is the mel-cepstral one, as in `Results.diversity`.
    """
    prompts, seeds = 60, 5
    sampled_prompts = [
        q.prompt for q in draw_questions(prompts, 300, ("instrument", "texture", "mode"))
    ]
    spread: dict[str, list[float]] = {}
    repetition: dict[str, list[float]] = {}
    for temperature in (0.5, 1.0, 1.5):
        clips = make_clips(
            engine,
            [
                _ask(sampled_prompts[seed // seeds], temperature, seed)
                for seed in range(prompts * seeds)
            ],
        )
        distances = spread.setdefault(str(temperature), [])
        signatures = np.stack([signature(clip.samples, clip.sample_rate) for clip in clips])
        for same in np.split(signatures, prompts):
            apart = mel_cepstral_distances(same)[np.triu_indices(seeds, 1)]
            distances.append(float(apart.mean()))
        if temperature == 1.0:
            repetition["sampled"] = _mean_newness_db(clips, seeds)
    greedy = make_clips(engine, [_ask(prompt, 0.0, 0) for prompt in sampled_prompts])
    repetition["greedy"] = _mean_newness_db(greedy, 1)
    low, middle, high = (np.array(spread[t]) for t in ("0.5", "1.0", "1.5"))
    more = np.array(repetition["sampled"]) - np.array(repetition["greedy"])
    return {
        "diversity_db": {name: Estimate.of(values) for name, values in spread.items()},
        "diversity_rise_0.5_to_1": Estimate.of(middle - low),
        "diversity_rise_1_to_1.5": Estimate.of(high - middle),
        "newness_db": {name: Estimate.of(values) for name, values in repetition.items()},
        "newness_sampled_over_greedy": Estimate.of(more),
    }


def measure_tempo_and_mode(engine: Engine, classifiers: AttributeClassifiers) -> dict[str, Any]:
    """Measure tempo with drums, and mode by the better fitting triad."""
    rng, clips = np.random.default_rng(400), 30
    drummed = [p for p in (draw_piece(rng) for _ in range(20 * clips)) if p.drums][:clips]
    named = ("tempo_bpm", "instrument", "drums")
    errors = []
    for piece, clip in _answer(engine, drummed, named, duration_s=8.0):
        samples = clip.samples[0]
        near = classifiers.recognise(samples[: int(DURATION_S * clip.sample_rate)])["tempo_bpm"]
        errors.append(abs(refine_tempo(samples, near) / piece.tempo_bpm - 1))
    plain = [draw_piece(rng) for _ in range(clips)]
    correct = []
    for piece, clip in _answer(engine, plain, ("mode", "instrument"), duration_s=8.0):
        major = mode_evidence(clip.samples[0])[2] > 0
        correct.append(major == (piece.mode == "major"))
    return {
        "tempo_within_4_percent": Estimate.of(error <= 0.04 for error in errors),
        "mode_by_triad": Estimate.of(correct),
    }


def measure_long_clips(engine: Engine) -> dict[str, Any]:
    """Measure the level of every fifth of 30 s clips of the four contract prompts."""
    requests = [
        GenerationRequest(prompt=prompt, duration=30.0, seed=0) for prompt in CONTRACT_PROMPTS
    ]
    levels, silences = {}, []
    for clip in make_clips(engine, requests):
        parts = np.array_split(clip.samples, 5, axis=1)
        levels[clip.request.prompt] = [round(level_dbfs(part), 1) for part in parts]
        silences.append(silence_ratio(Sound(clip.samples, clip.sample_rate)))
    return {"level_dbfs_over_30_s": levels, "silence_ratio_over_30_s": max(silences)}


def measure_speed(model: Path) -> float:
    """Return the seconds that a new process takes for 25 clips of 4 s."""
    program = (
        "import sys; from pathlib import Path; from musicgen_lab.engine.engine import Engine; "
        "from musicgen_lab.request import GenerationRequest as R; "
        "made = list(Engine.open(Path(sys.argv[1])).generate("
        f"R(prompt='fast piano', duration=4, seed=s) for s in range({SPEED_CLIPS}))); "
        f"assert len(made) == {SPEED_CLIPS}"
    )
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", program, str(model)], check=True)
    return time.perf_counter() - started_s


def make_clips(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Clip]:
    """Make clips and return them in the order of their requests."""
    made: dict[str, Clip] = {}
    for result in engine.generate(requests):
        if isinstance(result, Failure):
            raise RuntimeError(f"{result.request.prompt!r} failed: {result.message}")
        made[result.request.key()] = result
    return [made[request.key()] for request in requests]


def _answer(
    engine: Engine, pieces: Sequence[Piece], named: Sequence[str], *, duration_s: float
) -> list[tuple[Piece, Clip]]:
    requests = [
        GenerationRequest(prompt=write_prompt(piece, named), duration=duration_s, seed=seed)
        for seed, piece in enumerate(pieces)
    ]
    return list(zip(pieces, make_clips(engine, requests), strict=True))


def _ask(prompt: str, temperature: float, seed: int) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, duration=DURATION_S, temperature=temperature, seed=seed)


def _picture(clip: Clip) -> npt.NDArray[np.float64]:
    """Return a mel spectrogram that ends 70 dB below full scale: (bands, t) in dB."""
    mel = mel_spectrogram_db(clip.samples, clip.sample_rate, n_mels=48, hop_s=0.04, pad=False)
    return np.maximum(mel.level_db, -70.0).astype(np.float64)


def _mean_newness_db(clips: Sequence[Clip], each: int) -> list[float]:
    """Return the newness of every so many clips, their mean."""
    newness = np.array([_newness_db(_picture(clip)) for clip in clips]).reshape(-1, each)
    return [float(values.mean()) for values in newness]


def _newness_db(picture: npt.NDArray[np.float64]) -> float:
    """Return a frame's distance from the most similar one at least 0.5 s before it, in dB."""
    distances = np.abs(picture[:, :, None] - picture[:, None, :]).mean(axis=0)  # (t, t)
    first = 13  # frames of 40 ms: half a second
    return float(
        np.mean([distances[t, : t - first + 1].min() for t in range(first, len(distances))])
    )
