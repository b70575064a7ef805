"""Simulates studies and counts what is claimed of them; the tables stand in docs/claims.md.

`python scripts/simulate_claims.py` prints two tables in Markdown. The first one counts, over
simulated studies of eight features on which nothing has any effect, how many claim anything at all
where at most 5% may. The second one counts how often a known effect is found.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musicgen_lab.stats.contrasts import Clips, Residuals, effective_df, inflation
from musicgen_lab.stats.designs import (
    additive_model,
    combinations,
    indicators,
    interaction_weights,
)
from musicgen_lab.stats.effects import holm, judge_ordered, judge_unordered

Array = np.ndarray
ALPHA = 0.05
FEATURES = 8  # of a study
PATTERNS = 10  # of missing clips in one setting
BY_SEED = 0.07  # variance that clips of a seed have in common, as with the embedded model


@dataclass(frozen=True)
class Setting:
    """A kind of study.

    Attributes
    ----------
    levels : tuple of int
        Of each parameter.
    seeds : int
    noise : str
        A key of `NOISE`.
    scatter : tuple of int or None
        A parameter and its level at which clips scatter ten times as much.
    missing : float
        Share of the clips that are missing, at random.
    by_seed, by_seed_and_level : float
        Variances that clips of a seed have in common, and those of a seed at a level, against the
        clips' own variance of 1.
    unordered : tuple of int
        Parameters whose levels have no order, such as prompts.
    same : bool
        Whether the last level of the first parameter has the same recordings as the one before.
    inert : bool
        Whether the last parameter does next to nothing: with the same seed, clips at its levels
        differ by a tenth of what others do.
    failing : bool
        Whether half of the clips at the last level of the first parameter are missing, at random.
    features : int
        How many are tested.
    alone : bool
        Whether only the first feature has variance by seed and level.
    """

    levels: tuple[int, ...]
    seeds: int
    noise: str = "normal"
    scatter: tuple[int, int] | None = None
    missing: float = 0.0
    by_seed: float = BY_SEED
    by_seed_and_level: float = 0.0
    unordered: tuple[int, ...] = ()
    same: bool = False
    inert: bool = False
    failing: bool = False
    features: int = FEATURES
    alone: bool = False

    def __str__(self) -> str:
        parts = [" x ".join(map(str, self.levels)) + " levels", f"{self.seeds} seeds"]
        parts += [self.noise] if self.noise != "normal" else []
        if self.scatter:
            which = ("first", "second", "third", "fourth")[self.scatter[0]]
            parts.append(f"level {self.scatter[1] + 1} of the {which} parameter scatters 10 times")
        parts += [f"{self.missing:.0%} missing"] if self.missing else []
        parts += [f"seed variance {self.by_seed}"] if self.by_seed != BY_SEED else []
        if self.by_seed_and_level:
            parts.append(f"seed by level variance {self.by_seed_and_level}")
        parts += ["the first parameter is prompts"] if self.unordered else []
        parts += ["the last two levels have the same clips"] if self.same else []
        parts += ["the last parameter does next to nothing"] if self.inert else []
        parts += ["half of the last level missing"] if self.failing else []
        parts += ["in one feature"] if self.alone else []
        parts += ["1 feature"] if self.features == 1 else []
        return ", ".join(parts)


NOISE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "skewed": lambda rng, shape: (rng.lognormal(size=shape) - np.exp(0.5)) / 2.16,
    "counts": lambda rng, shape: rng.poisson(2, size=shape) / np.sqrt(2),
    "one in five": lambda rng, shape: (rng.random(shape) < 0.2) / 0.4,
    "half and half": lambda rng, shape: (rng.random(shape) < 0.5) / 0.5,
    "octaves": lambda rng, shape: (rng.random(shape) < 0.4) / 0.5 + 0.02 * rng.normal(size=shape),
}
DISCRETE = ("counts", "one in five", "half and half")  # these have nothing added to them

SETTINGS = (
    *(Setting((3, 3), seeds) for seeds in (3, 4, 6, 8, 16)),
    *(
        Setting((3, 3), seeds, noise)
        for noise in ("heavy tails", "skewed", "counts", "one in five", "half and half", "octaves")
        for seeds in (3, 8)
    ),
    *(Setting((3, 3), seeds, scatter=(0, level)) for seeds in (3, 4, 16) for level in (0, 1)),
    *(Setting((3, 3), seeds, missing=0.1) for seeds in (3, 4, 8)),
    Setting((3, 3), 4, failing=True),
    Setting((3, 3), 4, scatter=(0, 2), failing=True),
    Setting((3,), 6, scatter=(0, 2), failing=True),
    *(
        Setting((3, 3), seeds, by_seed_and_level=variance)
        for seeds in (3, 8)
        for variance in (0.1, 0.25)
    ),
    *(Setting((3, 3), seeds, by_seed_and_level=1.0) for seeds in (3, 8)),
    *(Setting((3, 3), seeds, by_seed_and_level=1.0, alone=True) for seeds in (3, 8)),
    *(Setting((3, 3), seeds, inert=True) for seeds in (3, 8)),
    *(Setting((3, 3, 2), seeds, inert=True) for seeds in (3, 4)),
    Setting((3, 3), 4, by_seed=0.5),
    *(Setting((2,), seeds) for seeds in (3, 8)),
    *(Setting((2,), seeds, scatter=(0, 1)) for seeds in (3, 4, 8)),
    *(Setting((2,), seeds, noise) for seeds in (3, 4) for noise in ("half and half", "octaves")),
    *(Setting((6,), seeds) for seeds in (3, 8)),
    *(Setting((6,), seeds, scatter=(0, 5)) for seeds in (3, 4, 8)),
    *(Setting((3,), seeds, same=True) for seeds in (3, 8)),
    *(Setting((3,), seeds, "octaves") for seeds in (3, 4, 5)),
    *(Setting((3,), seeds, "half and half", features=1) for seeds in (4, 8)),
    *(Setting((2,), seeds, "octaves", features=1) for seeds in (4, 8)),
    *(Setting((2, 2), seeds, "octaves") for seeds in (3, 4)),
    *(Setting((3, 3), seeds, features=1) for seeds in (3, 8)),
    Setting((3, 3), 3, features=1, by_seed_and_level=1.0),
    Setting((5, 5), 4),
    Setting((5, 5), 4, scatter=(0, 4), missing=0.1),
    Setting((5, 5), 4, by_seed_and_level=0.25),
    Setting((3, 3, 2), 4),
    Setting((3, 3, 2), 4, "skewed"),
    Setting((2, 2, 2, 2), 3),
    Setting((2, 2, 2, 2), 4, scatter=(0, 1)),
    Setting((5,), 4, unordered=(0,)),
    Setting((5,), 8, unordered=(0,), scatter=(0, 2)),
    Setting((5, 3, 3), 3, unordered=(0,)),
    Setting((5, 3, 3), 3, unordered=(0,), missing=0.1),
    Setting((5, 3, 3), 3, unordered=(0,), scatter=(0, 2)),
    *(Setting((3,), seeds, "half and half") for seeds in (8, 12, 20)),
    *(Setting((2,), seeds, "half and half") for seeds in (8, 12)),
    Setting((5, 3, 3), 3, "half and half", unordered=(0,)),
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Many studies of one design: the level of each parameter, the seed and values of each clip."""

    levels: list[Array]
    seed: Array
    values: Array
    digests: Array
    features: int


def draw(setting: Setting, studies: int, rng: np.random.Generator) -> Drawn:
    """Draw the features of many studies without any effect; all lack the same clips."""
    grid = np.array(list(itertools.product(*map(range, (*setting.levels, setting.seeds)))))
    levels, seed = list(grid[:, :-1].T), grid[:, -1]
    features = studies * setting.features
    values = NOISE[setting.noise](rng, (len(grid), features)).astype(float)
    if setting.scatter:
        parameter, level = setting.scatter
        values[levels[parameter] == level] *= 10
    if setting.noise not in DISCRETE:
        common = rng.normal(size=(setting.seeds, features))
        values += np.sqrt(setting.by_seed) * common[seed]
    for column, size in (
        zip(levels, setting.levels, strict=True) if setting.by_seed_and_level else ()
    ):
        common = rng.normal(size=(setting.seeds, size, features))
        if setting.alone:
            common *= np.arange(features) % setting.features == 0
        values += np.sqrt(setting.by_seed_and_level) * common[seed, column]
    if setting.inert:
        _, first, clip = np.unique(
            np.column_stack([*levels[:-1], seed]), axis=0, return_index=True, return_inverse=True
        )
        values = values[first][clip.ravel()] + 0.1 * rng.normal(size=values.shape)
    digests = np.arange(len(grid))
    if setting.same:
        last, before = (np.flatnonzero(levels[0] == setting.levels[0] - back) for back in (1, 2))
        values[last], digests[last] = values[before], digests[before]
    kept = rng.random(len(grid)) >= setting.missing
    if setting.failing:
        kept &= (levels[0] < setting.levels[0] - 1) | (rng.random(len(grid)) < 0.5)
    levels = [column[kept] for column in levels]
    return Drawn(levels, seed[kept], values[kept], digests[kept], setting.features)


def claims(drawn: Drawn, unordered: Sequence[int] = ()) -> tuple[Array, Array]:
    """Return the p-values of every question of every study, and whether each may be claimed.

    Returns
    -------
    p_values, supported : np.ndarray [shape=(studies, questions)]
        The trends of two parameters on each other last.
    """
    clips = Clips.of(drawn.values, drawn.digests.tolist())
    rows, model = len(drawn.seed), additive_model(drawn.levels, len(drawn.seed))
    p_values, supported = [], []
    for number, level in enumerate(drawn.levels):
        rest = [column for other, column in enumerate(drawn.levels) if other != number]
        residuals = _clustered(Residuals.of(clips, model, level), drawn)
        judge = judge_unordered if number in unordered else judge_ordered
        judged = judge(residuals, level, combinations(rest, rows), ALPHA)
        if judged is not None:
            p_values.append(judged.p_value)
            supported.append(judged.supported)
    ordered = [column for number, column in enumerate(drawn.levels) if number not in unordered]
    cells = indicators(combinations(drawn.levels, rows))
    for first, second in itertools.combinations(ordered, 2):
        rest = [column for column in drawn.levels if column is not first and column is not second]
        group = combinations([first, second], rows)
        residuals = Residuals.of(clips, cells, group)
        kept = ~residuals.too_few[group]
        weights = interaction_weights(first, second, combinations(rest, rows), kept)
        if weights is not None:
            residuals = _clustered(residuals, drawn)
            p_values.append(residuals.contrast(weights).p_value)
            supported.append(np.ones(len(p_values[-1]), bool))
    shape = (len(p_values), -1, drawn.features)
    return tuple(  # type: ignore[return-value]
        np.moveaxis(np.array(table).reshape(shape), 0, 1).reshape(-1, len(table) * drawn.features)
        for table in (p_values, supported)
    )


def _clustered(residuals: Residuals, drawn: Drawn) -> Residuals:
    """Allow for clips of one seed that are alike, in the features of each study together."""
    seed, values = drawn.seed[residuals.clips.first], residuals.residuals
    studies = np.split(values, values.shape[1] // drawn.features, axis=1)
    factors = [inflation(study, residuals.group, seed) for study in studies]
    df = effective_df(residuals.df, np.repeat(factors, drawn.features))
    return replace(residuals, df=df)


def false_studies(setting: Setting, studies: int, seed: int = 0) -> float:
    """Return the share of studies without any effect that claim something."""
    rng = np.random.default_rng(seed)
    patterns = PATTERNS if setting.missing or setting.failing else 1
    false = 0
    for _ in range(patterns):
        drawn = draw(setting, studies // patterns, rng)
        for p_values, supported in zip(*claims(drawn, setting.unordered), strict=True):
            false += bool(np.any((holm(p_values) < ALPHA) & supported))
    return false / (studies // patterns * patterns)


def power(
    seeds: int, effect: Callable[[Array], Array], studies: int, *, levels: int = 3
) -> tuple[float, float]:
    """Return how often an effect is found, by the first step of Holm's correction for 24.

    Returns
    -------
    ours, blocks : float
        By what is claimed here, and by analysis of variance with the seeds as blocks.
    """
    from scipy.stats import f

    drawn = draw(Setting((levels, 3), seeds), studies, np.random.default_rng(1))
    values = drawn.values + effect(drawn.levels[0])[:, np.newaxis]
    p_values, supported = claims(replace(drawn, values=values))
    step = ALPHA / (3 * FEATURES)
    ours = np.mean((p_values < step)[:, :FEATURES] & supported[:, :FEATURES])
    rows = len(drawn.seed)
    model = np.hstack([indicators(combinations(drawn.levels, rows)), indicators(drawn.seed)])
    basis, strengths, _ = np.linalg.svd(model, full_matrices=False)
    basis = basis[:, strengths > 1e-9 * strengths[0]]
    df = rows - basis.shape[1]
    error = np.sum((values - basis @ (basis.T @ values)) ** 2, axis=0) / df
    means = np.array([values[drawn.levels[0] == level].mean(axis=0) for level in range(levels)])
    between = rows / levels * np.var(means, axis=0) * levels / (levels - 1)
    blocks = np.mean(f.sf(between / error, levels - 1, df) < step)
    return float(ours), float(blocks)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="for each setting")
    studies = parser.parse_args().studies
    print("| Studies without any effect | Share that claims something |\n|---|---|")
    for number, setting in enumerate(SETTINGS):
        print(f"| {setting} | {false_studies(setting, studies, number):.1%} |", flush=True)
    print(
        "\n| Effect of 2 standard deviations | Seeds | Found | Seeds as blocks |\n|---|---|---|---|"
    )
    shapes = {"steady rise": lambda level: level * 1.0, "hump": lambda level: 2.0 * (level == 1)}
    for name, effect in shapes.items():
        for seeds in (3, 4, 6):
            ours, blocks = power(seeds, effect, studies)
            print(f"| {name} | {seeds} | {ours:.2f} | {blocks:.2f} |", flush=True)


if __name__ == "__main__":
    main()
