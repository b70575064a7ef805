"""Simulated studies: a grid with seeds, and features with effects that are put in."""

from __future__ import annotations

import itertools

import pandas as pd

PARAMETERS = ["temperature", "cfg_coef"]
TEMPERATURES, CFG_COEFS = (0.7, 1.0, 1.3), (1.0, 3.0, 5.0)
FEATURES = [f"feature_{number}" for number in range(5)]


def study(rng, *, seeds=4, effects=(), features=FEATURES, by_seed=0.7, by_seed_and_level=0.5):
    """Draw a study whose features have noise of three kinds and the effects that are given.

    Clips of one seed have something in common (`by_seed`), more so at one temperature or cfg_coef
    (`by_seed_and_level`), besides noise of their own with a standard deviation of 1. An effect is
    (feature, function of temperature and cfg_coef).
    """
    grid = itertools.product(TEMPERATURES, CFG_COEFS, range(seeds))
    frame = pd.DataFrame(grid, columns=[*PARAMETERS, "seed"])
    rows = len(frame)
    shared = by_seed * rng.normal(size=(seeds, len(features)))[frame["seed"]]
    for parameter, levels in zip(PARAMETERS, (TEMPERATURES, CFG_COEFS), strict=True):
        drawn = by_seed_and_level * rng.normal(size=(seeds, len(levels), len(features)))
        level = frame[parameter].map({value: i for i, value in enumerate(levels)})
        shared = shared + drawn[frame["seed"], level]
    values = rng.normal(size=(rows, len(features))) + shared
    frame = frame.join(pd.DataFrame(values, columns=features))
    for feature, effect in effects:
        frame[feature] += effect(frame["temperature"], frame["cfg_coef"])
    return frame
