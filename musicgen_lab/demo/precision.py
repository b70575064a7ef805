"""The difference between bfloat16 and float32 in sampling probabilities and clips' features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from musicgen_lab.analysis.features import NUMBERS, measure
from musicgen_lab.clip import Clip
from musicgen_lab.demo.measures import CONTRACT_PROMPTS, DURATION_S, make_clips
from musicgen_lab.demo.pieces import draw_piece
from musicgen_lab.demo.scoring import score
from musicgen_lab.demo.synthesiser import synthesise
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.request import GenerationRequest

Array = npt.NDArray[np.float64]

SEEDS = 40  # clips of every contract prompt and precision


def compare_precisions(model: Path, codec: Any) -> dict[str, Any]:
    """Compare bfloat16 with float32 on one model.

    Parameters
    ----------
    model : Path
        A model folder.
    codec : audiocraft.models.CompressionModel
        With its encoder.

    Returns
    -------
    dict
        `token_distance`: the mean total variation distance, from 0 to 1, between what both draw
        the next token from after the same music. `same_likeliest`: how often both find the same
        token likeliest. `feature_distance`: how far the features of their clips are apart on
        average, in standard deviations over seeds, and the same between two sets of seeds in
        float32, which is what chance makes.
    """
    full = Engine.open(model, EngineOptions(device="cpu", dtype="float32"))
    half = Engine.open(model, EngineOptions(device="cpu", dtype="bfloat16"))
    first, second = range(SEEDS), range(SEEDS, 2 * SEEDS)
    expected = _features(full, first)
    return {
        **_compare_tokens(full, half, codec),
        "feature_distance": {
            "bfloat16 and float32": _distance(expected, _features(half, first)),
            "float32 and other seeds": _distance(expected, _features(full, second)),
        },
    }


def _compare_tokens(full: Engine, half: Engine, codec: Any) -> dict[str, float]:
    rng = np.random.default_rng(700)
    distances, same = [], []
    for prompt in CONTRACT_PROMPTS:
        sound = torch.from_numpy(synthesise(draw_piece(rng), DURATION_S, rng))
        codes, _ = codec.encode(sound[None, None])  # (1, K, T)
        request = GenerationRequest(prompt=prompt, duration=DURATION_S, seed=0)
        ours, theirs = (score(engine, request, codes[0]) for engine in (full, half))
        due = ours.tokens != full.config.special_token  # (S, K)
        apart = (ours.probabilities - theirs.probabilities).abs().sum(dim=-1) / 2
        alike = ours.probabilities.argmax(dim=-1) == theirs.probabilities.argmax(dim=-1)
        distances.append(apart[due])
        same.append(alike[due].float())
    return {
        "token_distance": float(torch.cat(distances).mean()),
        "same_likeliest": float(torch.cat(same).mean()),
    }


def _features(engine: Engine, seeds: Sequence[int]) -> Array:
    """Return (prompts, seeds, features) of the contract prompts' clips."""
    requests = [
        GenerationRequest(prompt=prompt, duration=DURATION_S, seed=seed)
        for prompt in CONTRACT_PROMPTS
        for seed in seeds
    ]
    rows = [_numbers(clip) for clip in make_clips(engine, requests)]
    return np.array(rows).reshape(len(CONTRACT_PROMPTS), len(seeds), -1)


def _numbers(clip: Clip) -> list[float]:
    values = measure(clip.samples, clip.sample_rate)
    return [float(values[name] or 0.0) for name in NUMBERS]


def _distance(ours: Array, theirs: Array) -> float:
    """Return the mean distance of cell means in pooled standard deviations, over all features."""
    spread = np.sqrt((ours.var(axis=1, ddof=1) + theirs.var(axis=1, ddof=1)) / 2)
    apart = np.abs(ours.mean(axis=1) - theirs.mean(axis=1))
    return float(np.nanmean(apart[spread > 0] / spread[spread > 0]))
