"""`PreferenceStudy`: what listeners preferred in blind tests, and how parameters change that.

Answers become values of clips: the strength of a clip in comparisons (`bradley_terry`), and its
mean ratings. The effects of the parameters on them are tested as those on any feature are
(`effects`): seeds are the replicates. From five listeners on, listeners are replicates too: the
variance between them is added, so that what is significant may be said of such listeners; of fewer
it is said for these ones alone. `scripts/simulate_preferences.py` simulates the rates of false
claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from musicgen_lab.analysis.features import averaged_features
from musicgen_lab.analysis.spectrogram import Array
from musicgen_lab.runs.answers import RATING_MAX, AbxAnswer, Answer, PairAnswer, RatingAnswer
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.bradley_terry import Strengths
from musicgen_lab.stats.effects import conclude, holm, main_effects
from musicgen_lab.stats.ratings import MeanRatings
from musicgen_lab.stats.run_features import with_run_features
from musicgen_lab.stats.study_tables import ALPHA, StudyTables
from musicgen_lab.stats.trends import trends

if TYPE_CHECKING:
    import pandas as pd

PREFERENCE, QUALITY, FIT = "preference", "quality", "fit"
MEASURES = (PREFERENCE, QUALITY, FIT)
FEWEST_LISTENERS = 5
"""With fewer listeners, claims are of these alone: so few tell little of how others differ."""

SCORES = {"a": 1.0, "none": 0.5, "b": 0.0}


@dataclass(frozen=True, eq=False)
class Liking:
    """How much clips are liked, by one measure.

    Attributes
    ----------
    value : np.ndarray [shape=(clips,)]
        NaN for clips that nobody judged.
    listeners : tuple of str
        Who judged them.
    by_listener : np.ndarray [shape=(active or active + 1, clips)]
        By how much each active listener changes the values, then all others together.
    answers : int
    active : int
        How many listeners gave at least a quarter as many answers as the one who gave most.
    at_ends : float
        Share of the ratings that are the lowest or the highest there is. What is beyond is lost,
        and effects are estimated too small by about this share [1]_.

    References
    ----------
    .. [1] McDonald, J. F., and Moffitt, R. A. (1980). The uses of Tobit analysis. Review of
       Economics and Statistics 62(2).
    """

    value: Array
    listeners: tuple[str, ...]
    by_listener: Array
    answers: int
    active: int
    at_ends: float = 0.0


@dataclass(frozen=True, eq=False)
class PreferenceStudy:
    """What listeners answered about the clips of a run.

    Attributes
    ----------
    table : RunTable
    given : tuple of Answer
        The answers about clips of the table, by time.
    """

    table: RunTable
    given: tuple[Answer, ...]

    @classmethod
    def of(cls, table: RunTable) -> PreferenceStudy:
        """Read the answers in a run's folder, except those about clips that are not in the table.

        Parameters
        ----------
        table : RunTable
        """
        keys = set(table.rows["key"])
        given = table.run.answers.read()
        return cls(table, tuple(answer for answer in given if keys.issuperset(clips_of(answer))))

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row per answer, by time: the fields of `musicgen_lab.runs.answers`."""
        import pandas as pd

        columns = dict.fromkeys(
            name for kind in (PairAnswer, AbxAnswer, RatingAnswer) for name in kind.model_fields
        )
        frame = pd.DataFrame([answer.model_dump() for answer in self.given], columns=[*columns])
        return frame.astype({"quality": "Int64", "fit": "Int64"})

    @cached_property
    def listener_names(self) -> list[str]:
        """Everyone who answered, in the order of their first answers."""
        return list(dict.fromkeys(answer.listener for answer in self.given))

    @cached_property
    def liking(self) -> dict[str, Liking]:
        """How much clips are liked, by measure: "preference", "quality" and "fit", where judged."""
        pairs = [answer for answer in self.given if _is_judged_pair(answer)]
        ratings = [answer for answer in self.given if isinstance(answer, RatingAnswer)]
        liking = {PREFERENCE: self._preference(pairs)} if pairs else {}
        for measure in (QUALITY, FIT):
            rated = [
                (answer.listener, answer.clip, float(rating))
                for answer in ratings
                if (rating := getattr(answer, measure)) is not None
            ]
            if rated:
                liking[measure] = self._mean_rating(rated)
        return liking

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The run's clips with a column for each measure; NaN where a clip was not judged.

        ``preference`` is a clip's strength in log-odds; 0 is the average clip of its prompt.
        ``quality`` and ``fit`` are mean ratings in points, 0 being the average clip.
        """
        values = {measure: liking.value for measure, liking in self.liking.items()}
        return self.table.rows.assign(**values)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """The effect of each parameter on each measure, corrected together.

        The columns are those of `musicgen_lab.stats.effects.main_effects`, with the measure as
        ``feature``; for a random design those of `musicgen_lab.stats.trends.trends`. Further ones
        are ``answers``, ``listeners``, and ``general``: whether a claim is of such listeners, or of
        these alone. A prompt has no effect on preference, since only clips of one prompt are
        compared.
        """
        import pandas as pd

        random = StudyTables.of(self.table).is_random_design
        parts = []
        for measure, liking in self.liking.items():
            listeners = len(liking.listeners)
            general = liking.active >= FEWEST_LISTENERS and not random
            parameters = [
                name for name in self.table.parameters if (measure, name) != (PREFERENCE, "prompt")
            ]
            if not parameters:
                continue
            others = [name for name in self.table.parameters if name not in parameters]
            part = (
                trends(self.clips, parameters, [measure])
                if random
                else main_effects(
                    self.clips,
                    parameters,
                    [measure],
                    varied=others,
                    alpha=ALPHA,
                    replicate=self.table.replicate,
                    by_rater=liking.by_listener if general else None,
                )
            )
            parts.append(part.assign(answers=liking.answers, listeners=listeners, general=general))
        return conclude(pd.concat(parts, ignore_index=True), ALPHA) if parts else pd.DataFrame()

    def features(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return which features go with being preferred: rank correlations over clips.

        As `musicgen_lab.stats.trends.trends`, with the features as parameters; both sides are taken
        less their means over the clips of the same prompt. A correlation is no cause: a parameter
        may move both.

        Parameters
        ----------
        names : sequence of str, optional
            The features; see `musicgen_lab.analysis.features.averaged_features`.
        """
        import pandas as pd

        numbers = averaged_features(names)
        if PREFERENCE not in self.liking or not numbers:
            return pd.DataFrame()
        frame = with_run_features(self.table, numbers).frame
        frame = frame.assign(**{PREFERENCE: self.clips[PREFERENCE]}).dropna(subset=[PREFERENCE])
        values = frame[[*numbers, PREFERENCE]].astype("Float64").astype(float)
        centred = values - values.groupby(frame["prompt"]).transform("mean")
        # Every recording is a point of its own, also where several have the same value.
        points = centred.assign(recording=frame["audio_sha256"], prompt=frame["prompt"])
        return trends(points, [*numbers, "recording", "prompt"], [PREFERENCE], within="prompt")

    @cached_property
    def listeners(self) -> pd.DataFrame:
        """How consistent each listener is.

        Returns
        -------
        pandas.DataFrame
            One row per listener: ``listener``, ``answers``, ``skipped``; of comparisons,
            ``repeats`` (hidden ones), ``agreed`` (those answered as before, a half where one of the
            two was "no difference"), ``first`` and ``decided`` (how often the clip shown as A was
            preferred, among how many), ``side_p`` (exact binomial test of that against a half,
            corrected for the listeners by Holm's method); of ratings, ``rated_again`` and
            ``rating_change``, the mean absolute change of quality between a rating and its repeat.
        """
        import pandas as pd

        table = pd.DataFrame([self._consistency(name) for name in self.listener_names])
        if table.empty:
            return table
        return table.assign(side_p=holm(table["side_p"].to_numpy(float)))

    @cached_property
    def abx(self) -> pd.DataFrame:
        """Whether parameters can be heard: how often X was assigned correctly.

        Returns
        -------
        pandas.DataFrame
            One row per parameter in which A and B differ, and kind of X: ``parameter``,
            ``same_clip`` (whether X was A or B itself, and not another seed), ``listeners``,
            ``trials``, ``correct``, ``share`` with its exact interval ``low`` and ``high``,
            ``p_value`` (exact binomial test against guessing, one-sided), ``p_adjusted`` (Holm) and
            ``significant``.
        """
        import pandas as pd
        from scipy.stats import binomtest

        records = {record["key"]: record for record in self.table.rows.to_dict("records")}
        trials: dict[tuple[str, bool], list[AbxAnswer]] = {}
        for answer in self.given:
            if isinstance(answer, AbxAnswer) and answer.choice != "skip":
                a, b = records[answer.a], records[answer.b]
                apart = [name for name in self.table.parameters if a[name] != b[name]]
                kind = (", ".join(apart) or "seed", answer.x in (answer.a, answer.b))
                trials.setdefault(kind, []).append(answer)
        rows = []
        for (parameter, same_clip), answers in sorted(trials.items()):
            correct = sum(answer.choice == answer.x_is for answer in answers)
            test = binomtest(correct, len(answers), alternative="greater")
            interval = binomtest(correct, len(answers)).proportion_ci(1 - ALPHA)
            rows.append(
                {
                    "parameter": parameter,
                    "same_clip": same_clip,
                    "listeners": len({answer.listener for answer in answers}),
                    "trials": len(answers),
                    "correct": correct,
                    "share": correct / len(answers),
                    "low": float(interval.low),
                    "high": float(interval.high),
                    "p_value": float(test.pvalue),
                }
            )
        table = pd.DataFrame(rows)
        if table.empty:
            return table
        adjusted = holm(table["p_value"].to_numpy())
        heard = (adjusted < ALPHA) & (table["low"] > 0.5)  # the interval is two-sided
        return table.assign(p_adjusted=adjusted, significant=heard)

    def _preference(self, answers: Sequence[PairAnswer]) -> Liking:
        """Return the strengths of clips; equal recordings are one."""
        recordings, number = self._recordings()
        pairs = np.array([[number[answer.a], number[answer.b]] for answer in answers])
        listeners = list(dict.fromkeys(answer.listener for answer in answers))
        raters = np.array([listeners.index(answer.listener) for answer in answers])
        strengths = Strengths.fit(
            pairs,
            np.array([SCORES[answer.choice] for answer in answers]),
            int(recordings.max()) + 1,
            raters,
        )
        compared = np.isin(recordings, pairs)
        value = np.where(compared, strengths.value[recordings], np.nan)
        changes = np.where(compared, strengths.by_rater[:, recordings], 0.0)
        by_listener, active = by_active_rater(changes, np.bincount(raters))
        return Liking(value, tuple(listeners), by_listener, len(answers), active)

    def _mean_rating(self, rated: Sequence[tuple[str, str, float]]) -> Liking:
        """Return the mean ratings of clips; equal recordings are one, and a repeat counts half."""
        import pandas as pd

        recordings, number = self._recordings()
        frame = pd.DataFrame(rated, columns=["listener", "clip", "rating"])
        frame["clip"] = frame["clip"].map(number)
        means = frame.groupby(["listener", "clip"], sort=False)["rating"].mean().unstack()
        means = means.reindex(columns=range(recordings.max() + 1))
        fit = MeanRatings.fit(means.to_numpy(float))
        judged = means.notna().any().to_numpy()[recordings]
        value = np.where(judged, fit.value[recordings], np.nan)
        changes = np.where(judged, fit.by_rater[:, recordings], 0.0)
        counts = frame["listener"].value_counts().reindex(means.index).to_numpy()
        by_listener, active = by_active_rater(changes, counts)
        listeners = tuple(map(str, means.index))
        at_ends = float(frame["rating"].isin([0, RATING_MAX]).mean())
        return Liking(value, listeners, by_listener, len(rated), active, at_ends)

    def _recordings(self) -> tuple[Array, dict[str, int]]:
        """Number the recordings of the table's clips: by row, and by key."""
        frame = self.table.rows
        sounds = frame["audio_sha256"].fillna(frame["key"])
        recordings, _ = sounds.factorize()
        return recordings, dict(zip(frame["key"], map(int, recordings), strict=True))

    def _consistency(self, listener: str) -> dict[str, Any]:
        """Return a listener's row of `listeners`."""
        from scipy.stats import binomtest

        own = [answer for answer in self.given if answer.listener == listener]
        by_id = {answer.id: answer for answer in own}
        again = [(by_id[a.repeats], a) for a in own if a.repeats is not None and a.repeats in by_id]
        agreed = [
            1 - abs(_score_of(first, repeat.a) - SCORES[repeat.choice])
            for first, repeat in again
            if _is_judged_pair(first) and _is_judged_pair(repeat)
        ]
        changes = [
            abs(repeat.quality - first.quality)
            for first, repeat in again
            if isinstance(first, RatingAnswer) and isinstance(repeat, RatingAnswer)
            if first.quality is not None and repeat.quality is not None
        ]
        sides = [a.choice for a in own if isinstance(a, PairAnswer) and a.choice in ("a", "b")]
        first = sides.count("a")
        return {
            "listener": listener,
            "answers": len(own),
            "skipped": sum(is_skipped(answer) for answer in own),
            "repeats": len(agreed),
            "agreed": float(np.sum(agreed)),
            "first": first,
            "decided": len(sides),
            "side_p": float(binomtest(first, len(sides)).pvalue) if sides else np.nan,
            "rated_again": len(changes),
            "rating_change": float(np.mean(changes)) if changes else np.nan,
        }


def by_active_rater(changes: Array, answers: np.ndarray[Any, Any]) -> tuple[Array, int]:
    """Take those listeners for one who gave less than a quarter as many answers as the busiest.

    Each of them changes next to nothing, so that as replicates they would make the variance
    between listeners seem better known than it is.

    Parameters
    ----------
    changes : np.ndarray [shape=(raters, clips)]
        By how much each listener changes the clips' values.
    answers : np.ndarray [shape=(raters,)]
        How many each one gave.

    Returns
    -------
    by_rater : np.ndarray [shape=(active or active + 1, clips)]
    active : int
        How many gave at least a quarter.
    """
    is_active = answers >= answers.max() / 4
    rows, others = changes[is_active], changes[~is_active]
    if len(others):
        rows = np.vstack([rows, others.sum(axis=0)])
    return rows, int(is_active.sum())


def clips_of(answer: Answer) -> Iterator[str]:
    """Yield the keys of the clips that an answer is about."""
    if isinstance(answer, RatingAnswer):
        yield answer.clip
        return
    yield from (answer.a, answer.b)
    if isinstance(answer, AbxAnswer):
        yield answer.x


def is_skipped(answer: Answer) -> bool:
    """Return whether a listener passed over a question."""
    if isinstance(answer, RatingAnswer):
        return answer.quality is None
    return answer.choice == "skip"


def _is_judged_pair(answer: Answer) -> TypeGuard[PairAnswer]:
    return isinstance(answer, PairAnswer) and answer.choice != "skip"


def _score_of(answer: PairAnswer, clip: str) -> float:
    """Return what a clip got in a comparison."""
    score = SCORES[answer.choice]
    return score if answer.a == clip else 1 - score
