"""Simulates blind tests and counts what is claimed of them; the tables stand in docs/claims.md.

`python scripts/simulate_preferences.py` prints tables in Markdown, two for comparisons and two for
ratings: how often a blind test claims that a parameter changes what is preferred, or how clips are
rated, where none does, which may be at most 5%; and how often an effect that is there is found.
Simulated clips have strengths of their own besides those of their parameters, and simulated
listeners have tastes of their own, and their own ways to use a scale.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from musicgen_lab.listening.blind.pairs import candidate_pairs, choose_pair
from musicgen_lab.stats.bradley_terry import Design, Strengths
from musicgen_lab.stats.contrasts import Clips, Residuals
from musicgen_lab.stats.designs import additive_model, combinations
from musicgen_lab.stats.effects import Judged, holm, judge_ordered
from musicgen_lab.stats.preferences import FEWEST_LISTENERS, by_active_rater
from musicgen_lab.stats.ratings import MeanRatings

Array = np.ndarray
ALPHA = 0.05
POINTS = 10
"""Points of a rating for one unit of strength."""
FEW = 3
"""Answers of a listener who gives few."""


@dataclass(frozen=True)
class Setting:
    """A kind of blind test.

    Attributes
    ----------
    levels : tuple of int
        Of each parameter.
    seeds, listeners : int
    answers : int
        Of each listener.
    clips, tastes : float
        Standard deviations, in log-odds, of clips within their cells, and of the effects that the
        parameters have on each listener, from their lowest to their highest level. Of fewer
        listeners than five, who are spoken of alone, such a taste is an effect and no chance.
    own : float
        Standard deviation of what a listener finds of a clip, besides what all do.
    no_difference : float
        Differences up to this, in log-odds, are none to a listener.
    side : float
        By how much the first one is preferred, in log-odds.
    active : bool
        Whether pairs are chosen to be informative, as `musicgen-lab listen` does, or at random.
    busiest : bool
        Whether the first listener gives these answers, the second half as many, and the others a
        quarter.
    passing : int
        How many further listeners give three answers each.
    rated : bool
        Whether clips are rated and not compared.
    scales : float
        Standard deviation of the logarithm of how much of the scale listeners use.
    middle : float
        The mean rating; ratings over 100 are 100.
    steps : int
        Ratings are multiples of this.
    drift : float
        By how many points listeners become stricter from their first to their last rating.
    """

    levels: tuple[int, ...]
    seeds: int
    listeners: int
    answers: int
    clips: float = 0.7
    tastes: float = 0.0
    own: float = 0.5
    no_difference: float = 0.5
    side: float = 0.0
    active: bool = True
    busiest: bool = False
    passing: int = 0
    rated: bool = False
    scales: float = 0.0
    middle: float = 50.0
    steps: int = 1
    drift: float = 0.0

    def __str__(self) -> str:
        parts = [" x ".join(map(str, self.levels)) + " levels", f"{self.seeds} seeds"]
        parts.append(f"{self.listeners} listener{'s' * (self.listeners > 1)}")
        parts.append(f"{self.answers} answers each")
        parts += [f"clips vary by {self.clips:g}"] if self.clips != 0.7 else []
        if self.no_difference > 1:
            parts.append(f"no difference up to {self.no_difference:g}")
        parts += [f"tastes vary by {self.tastes:g}"] if self.tastes else []
        parts += [f"first side favoured by {self.side:g}"] if self.side else []
        parts += ["random pairs"] if not self.active else []
        parts += ["half and a quarter as many from others"] if self.busiest else []
        parts += [f"{FEW} from {self.passing} others"] if self.passing else []
        parts += ["scales differ"] if self.scales else []
        parts += ["half of the ratings at 100"] if self.middle == 100 else []
        parts += ["a fifth of the ratings at 100"] if self.middle == 80 else []
        parts += [f"multiples of {self.steps}"] if self.steps > 1 else []
        parts += [f"stricter by {self.drift:g} points at the end"] if self.drift else []
        return ", ".join(parts)


def study(setting: Setting, effect: float, rng: np.random.Generator) -> list[Judged]:
    """Simulate a blind test, and return what is said of each parameter.

    Parameters
    ----------
    setting : Setting
    effect : float
        Of the first parameter on all listeners, from its lowest to its highest level, in log-odds;
        ten points of a rating each.
    rng : np.random.Generator
    """
    grid = np.array(list(itertools.product(*map(range, (*setting.levels, setting.seeds)))))
    levels, seed, clips = grid[:, :-1], grid[:, -1], len(grid)
    steps = levels / (np.array(setting.levels) - 1)
    common = effect * steps[:, 0] + setting.clips * rng.normal(size=clips)
    listeners = setting.listeners + setting.passing
    tastes = setting.tastes * rng.normal(size=(listeners, len(setting.levels)))
    strengths = common + tastes @ steps.T
    strengths = strengths + setting.own * rng.normal(size=strengths.shape)
    fit: Strengths | MeanRatings
    if setting.rated:
        ratings = rate(setting, strengths, rng)
        fit = MeanRatings.fit(ratings)
        judged = np.isfinite(ratings).any(axis=0)
    else:
        pairs, scores, raters = listen(setting, strengths, rng)
        fit = Strengths.fit(pairs, scores, clips, raters)
        judged = np.isin(np.arange(clips), pairs)
    counts = np.array([answers_of(setting, listener) for listener in range(listeners)])
    by_rater, active = by_active_rater(fit.by_rater[:, judged], counts)
    return judge(
        levels[judged],
        seed[judged],
        fit.value[judged],
        by_rater if active >= FEWEST_LISTENERS else None,
    )


def judge(levels: Array, seed: Array, values: Array, by_rater: Array | None) -> list[Judged]:
    """Test each parameter as `musicgen_lab.stats.effects.main_effects` does, without a table."""
    columns, clips = list(levels.T), Clips.of(values[:, np.newaxis], range(len(values)))
    model = additive_model(columns, len(values))
    judged = []
    for number, level in enumerate(columns):
        others = combinations([*columns[:number], *columns[number + 1 :]], len(values))
        residuals = Residuals.of(clips, model, level, by_rater).clustered(seed)
        one = judge_ordered(residuals, level, others, ALPHA)
        judged += [one] if one is not None else []
    return judged


def answers_of(setting: Setting, listener: int) -> int:
    """Return how many answers a listener gives."""
    if listener >= setting.listeners:
        return FEW
    return math.ceil(setting.answers / (min(4, 2**listener) if setting.busiest else 1))


def rate(setting: Setting, strengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Let all listeners rate clips in random order; NaN where one has not."""
    ratings = np.full(strengths.shape, np.nan)
    for listener, liked in enumerate(strengths):
        order = rng.permutation(len(liked))[: answers_of(setting, listener)]
        points = POINTS * (liked[order] + rng.logistic(size=len(order)))
        points *= np.exp(setting.scales * rng.normal())
        points += setting.middle + 15 * rng.normal() - setting.drift * np.linspace(0, 1, len(order))
        ratings[listener, order] = np.clip(points / setting.steps, 0, 100 // setting.steps).round()
    return ratings * setting.steps


def listen(
    setting: Setting, strengths: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let all listeners answer, one after another: the pairs, scores and listeners."""
    clips = strengths.shape[1]
    candidates = candidate_pairs([""] * clips)
    pairs, scores, raters = [], [], []
    design = Design(np.zeros((0, 2), int), clips)
    for listener, liked in enumerate(strengths):
        left = rng.permutation(candidates)
        for number in range(answers_of(setting, listener)):
            if setting.active:
                pair = choose_pair(left, design, rng)
                design.add(pair)
                left = left[(left[:, 0] != pair[0]) | (left[:, 1] != pair[1])]
            else:
                pair = left[number]
            a, b = rng.permutation(pair)
            heard = liked[a] - liked[b] + setting.side + rng.logistic()
            score = 0.5 if abs(heard) < setting.no_difference else float(heard > 0)
            pairs.append((a, b))
            scores.append(score)
            raters.append(listener)
    return np.array(pairs), np.array(scores), np.array(raters)


def studies(setting: Setting, number: int, effect: float = 0.0) -> Iterator[list[Judged]]:
    """Simulate many blind tests of one kind; the same ones each time."""
    rng = np.random.default_rng(1)
    for _ in range(number):
        yield study(setting, effect, rng)


def claimed(judged: Sequence[Judged]) -> list[bool]:
    """Return which parameters have an effect, by what is said of them."""
    adjusted = holm(np.array([one.p_value[0] for one in judged]))
    return [
        bool(p_value < ALPHA and one.supported[0])
        for p_value, one in zip(adjusted, judged, strict=True)
    ]


def false_claims(setting: Setting, number: int) -> float:
    """Return the share of tests that claim any effect where there is none."""
    return float(np.mean([any(claimed(judged)) for judged in studies(setting, number)]))


@dataclass(frozen=True)
class Power:
    """What is found of an effect.

    Attributes
    ----------
    found : float
        Share of the tests that find the first parameter's effect, in its direction.
    estimate : float
        Mean estimate of it, in log-odds or points.
    covered : float
        Share of the intervals that hold it.
    """

    found: float
    estimate: float
    covered: float


def power(setting: Setting, effect: float, number: int) -> Power:
    """Simulate tests in which the first parameter has an effect."""
    true = effect * (POINTS if setting.rated else 1)
    claims, estimates, covered = 0, [], 0
    for judged in studies(setting, number, effect):
        first = judged[0]
        if first.shape[0] != "trend":
            continue
        value, (low, high) = float(first.estimate.value[0]), first.estimate.interval(first.alpha)
        claims += claimed(judged)[0] and value > 0
        estimates.append(value)
        covered += bool(low[0] <= true <= high[0])
    return Power(claims / number, float(np.mean(estimates)), covered / len(estimates))


SETTINGS = (
    *(Setting((3, 3), seeds, 1, 60) for seeds in (3, 6)),
    Setting((3, 3), 6, 1, 60, clips=1.5),
    Setting((3, 3), 6, 1, 60, clips=0.0, own=0.0),
    Setting((3, 3), 6, 1, 60, side=1.0),
    Setting((3, 3), 6, 1, 60, no_difference=2.0),
    Setting((3, 3), 6, 1, 60, active=False),
    Setting((2,), 4, 1, 28),
    Setting((2,), 8, 1, 60),
    Setting((2, 2, 2), 4, 1, 60),
    *(Setting((3, 3), 6, listeners, 40) for listeners in (2, 4, 5)),
    *(Setting((3, 3), 6, 5, 40, tastes=tastes) for tastes in (1.0, 3.0, 6.0)),
    Setting((3, 3), 6, 5, 80, tastes=3.0, busiest=True),
    Setting((3, 3), 6, 5, 40, tastes=3.0, passing=30),
    Setting((3, 3), 6, 8, 40, tastes=3.0),
    Setting((2,), 4, 5, 28, tastes=2.0),
)

RATED = (
    *(Setting((3, 3), seeds, 1, 9 * seeds, rated=True) for seeds in (3, 6)),
    Setting((3, 3), 6, 1, 27, rated=True),
    Setting((3, 3), 6, 1, 54, rated=True, middle=100.0),
    Setting((3, 3), 6, 1, 54, rated=True, steps=20),
    Setting((3, 3), 6, 1, 54, rated=True, drift=30.0),
    Setting((2,), 4, 1, 8, rated=True),
    *(Setting((3, 3), 6, listeners, 30, rated=True) for listeners in (2, 4, 5)),
    Setting((3, 3), 6, 4, 30, rated=True, scales=0.7),
    Setting((3, 3), 6, 5, 54, rated=True, scales=0.7),
    Setting((3, 3), 6, 5, 30, rated=True, middle=100.0, scales=0.7),
    *(Setting((3, 3), 6, 5, 30, rated=True, tastes=tastes) for tastes in (1.0, 3.0, 6.0)),
    Setting((3, 3), 6, 5, 10, rated=True, tastes=3.0),
    Setting((3, 3), 6, 5, 54, rated=True, tastes=3.0, scales=0.7, busiest=True),
    Setting((3, 3), 6, 5, 54, rated=True, tastes=3.0, passing=30),
    Setting((3, 3), 6, 8, 30, rated=True, tastes=3.0),
    Setting((2,), 4, 5, 8, rated=True, tastes=3.0),
)

POWERS = (
    *(Setting((3, 3), seeds, 1, answers) for seeds in (3, 6) for answers in (60, 120)),
    *(Setting((3, 3), 6, listeners, 40) for listeners in (2, 4, 5, 8)),
    *(Setting((3, 3), 6, listeners, 40, tastes=1.0) for listeners in (5, 8)),
)

RATED_POWERS = (
    *(Setting((3, 3), seeds, 1, 9 * seeds, rated=True) for seeds in (3, 6)),
    *(Setting((3, 3), 6, listeners, 30, rated=True) for listeners in (2, 4, 5, 8)),
    *(Setting((3, 3), 6, listeners, 30, rated=True, tastes=1.0) for listeners in (5, 8)),
    Setting((3, 3), 6, 5, 30, rated=True, scales=0.7),
    *(Setting((3, 3), 6, 5, 30, rated=True, middle=middle) for middle in (80.0, 100.0)),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown, each row when it is there."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def false_row(setting: Setting, number: int) -> Sequence[str]:
    """Return a row of a table of tests without an effect."""
    return str(setting), f"{false_claims(setting, number):.1%}"


def power_row(setting: Setting, effect: float, number: int) -> Sequence[str]:
    """Return a row of a table of tests with an effect."""
    it = power(setting, effect, number)
    return str(setting), f"{it.found:.2f}", f"{it.estimate:.2f}", f"{it.covered:.0%}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400, help="Of each kind without effect.")
    parser.add_argument("--effect", type=float, default=1.5, help="In log-odds.")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    number, effect = options.studies, options.effect
    without = partial(false_row, number=number)
    with_effect = partial(power_row, effect=effect, number=number // 4)
    columns = "Found", "Mean estimate", "Intervals that hold it"
    with ProcessPoolExecutor(options.processes) as pool:
        table(["Tests without an effect", "Claim one"], pool.map(without, SETTINGS))
        table([f"Effect of {effect:g}", *columns], pool.map(with_effect, POWERS))
        table(["Ratings without an effect", "Claim one"], pool.map(without, RATED))
        table(
            [f"Effect of {POINTS * effect:g} points", *columns],
            pool.map(with_effect, RATED_POWERS),
        )


if __name__ == "__main__":
    main()
