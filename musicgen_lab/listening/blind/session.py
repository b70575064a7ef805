"""`BlindSession`: the questions of one sitting, and the answers to them.

The page in a browser, the widget in a notebook and simulated listeners all ask it for the next
trial and give it the answer, which it writes to the run folder at once. A later session of the same
listener goes on where the last one ended.
"""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from pydantic import ValidationError

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.formatting import short
from musicgen_lab.listening.blind.pairs import candidate_pairs, choose_pair
from musicgen_lab.runs.answers import (
    AbxAnswer,
    Answer,
    PairAnswer,
    RatingAnswer,
    check_listener,
)
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.bradley_terry import Design
from musicgen_lab.stats.designs import is_ordered
from musicgen_lab.stats.preferences import clips_of, is_skipped
from musicgen_lab.stats.study_tables import rows_of

Mode = Literal["pairs", "abx", "rate"]
MODES: tuple[str, ...] = get_args(Mode)

REPEAT_EVERY = 8
"""One in so many questions is one that was answered before, so that consistency is measured."""

REPEAT_AFTER = 4
"""So many other questions lie between a question and its repeat."""

CLIPS_MAX = 200
"""A session draws its pairs from at most so many clips, chosen at random."""


@dataclass(frozen=True)
class Trial:
    """One question.

    Attributes
    ----------
    id : str
        Random; the only thing that leaves for a page.
    mode : {"pairs", "abx", "rate"}
    clips : tuple of str
        The keys of A and B, of A, B and X, or of the clip to rate.
    x_is : {"a", "b"} or None
        Whose parameters X has.
    repeats : str or None
        The id of the answer whose question is asked again.
    """

    id: str
    mode: Mode
    clips: tuple[str, ...]
    x_is: Literal["a", "b"] | None = None
    repeats: str | None = None


class BlindSession:
    """A sitting of one listener.

    Parameters
    ----------
    table : RunTable
    listener : str
        Their name; answers of the same name are of one listener, in small letters or capitals.
    mode : {"pairs", "abx", "rate"}
    seed : int, optional
        Of the order and the sides; a new one for each session if not given.

    Attributes
    ----------
    answered : int
        Answers that this listener has given in this mode, in earlier sessions too.

    Raises
    ------
    InvalidRequest
        When there is no such mode, the listener has no name, or nothing is there to be compared.
    RunFolderUnwritable
        When answers cannot be written.
    """

    def __init__(
        self, table: RunTable, listener: str, mode: Mode = "pairs", *, seed: int | None = None
    ) -> None:
        if mode not in MODES:
            raise InvalidRequest(
                f"mode must be one of {', '.join(MODES)}, got {short(mode)}",
                field="mode",
                value=mode,
            )
        check_listener(listener)
        self.table, self.mode = table, mode
        self.id = secrets.token_hex(16)
        self._rng = np.random.default_rng(seed)
        rows = table.rows
        made = rows[(rows["status"] == "ok") & (rows["frames"] > 0)]
        heard_once = made.drop_duplicates(["prompt", "audio_sha256"])
        self._clips = rows_of(made if mode == "abx" else heard_once)
        self._check_comparable()
        table.run.answers.check_writable()
        kinds = {"pairs": PairAnswer, "abx": AbxAnswer, "rate": RatingAnswer}
        earlier = table.run.answers.read()
        names = {answer.listener.casefold(): answer.listener for answer in earlier}
        self.listener = names.get(listener.casefold(), listener)
        self._given = [answer for answer in earlier if isinstance(answer, kinds[mode])]
        self._trial: Trial | None = None

    @property
    def answered(self) -> int:
        """Answers that this listener has given in this mode, in earlier sessions too."""
        return len(self._own)

    @property
    def _own(self) -> list[Answer]:
        return [answer for answer in self._given if answer.listener == self.listener]

    @property
    def trial(self) -> Trial | None:
        """The question to be answered now; None when all have been."""
        if self._trial is None:
            draw = {"pairs": self._draw_pair, "abx": self._draw_abx, "rate": self._draw_rating}
            self._trial = self._draw_repeat() or draw[self.mode]()
        return self._trial

    def prompt(self, trial: Trial) -> str:
        """Return the prompt of a trial's clips."""
        return str(self._record(trial.clips[0])["prompt"])

    def length_s(self, trial: Trial) -> float:
        """Return how much of each clip is played, so that no clip is known by its length.

        As much as the shortest clip of the trial has; of a single clip, the shortest of the run.
        """
        clips = self._clips if len(trial.clips) == 1 else [self._record(key) for key in trial.clips]
        return float(min(clip["duration_s"] for clip in clips))

    def answer(self, trial_id: str, *, comment: str = "", **given: Any) -> Answer:
        """Write down the answer to the question that is asked now.

        Parameters
        ----------
        trial_id : str
            Of the trial.
        comment : str
        **given
            ``choice``, "a", "b", "none" (of a pair) or "skip"; or for a rating, ``quality`` and
            ``fit``, 0 to 100, both None to skip the clip.

        Raises
        ------
        InvalidRequest
            When another question is asked now, or there is no such answer.
        RunFolderUnwritable
            When it cannot be written; the question stays.
        """
        trial = self._trial
        if trial is None or trial_id != trial.id:
            raise InvalidRequest(
                "this question is not open any more; the page shows the next one when it is loaded "
                "again",
                field="trial",
                value=trial_id,
            )
        common = {
            "id": trial.id,  # the same if it has to be given again, so that it counts once
            "listener": self.listener,
            "session": self.id,
            "repeats": trial.repeats,
            "comment": comment,
        }
        try:
            answer = self._answer_of(trial, common | given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "answer"
            value = (common | given).get(name)
            raise InvalidRequest(
                f"{name}: {first['msg'].lower()}, got {short(value)}", field=name, value=value
            ) from error
        self.table.run.answers.append(answer)
        self._given.append(answer)
        self._trial = None
        return answer

    def _answer_of(self, trial: Trial, fields: dict[str, Any]) -> Answer:
        if trial.mode == "rate":
            return RatingAnswer(clip=trial.clips[0], **fields)
        if trial.mode == "pairs":
            return PairAnswer(a=trial.clips[0], b=trial.clips[1], **fields)
        a, b, x = trial.clips
        fields |= {"x_is": trial.x_is}
        return AbxAnswer(a=a, b=b, x=x, **fields)

    def _check_comparable(self) -> None:
        """Reject a run with nothing to compare."""
        fault = ""
        if not self._clips:
            fault = f"{self.table.folder} has no clip to hear; run its sweep first"
        elif self.mode == "pairs" and not len(self._pairs):
            fault = (
                "comparing needs two clips of one prompt, and there are none; sweep a parameter or "
                "several seeds"
            )
        elif self.mode == "abx" and not self._contrasts:
            fault = (
                "abx needs two clips that differ in one parameter alone, and there are none; sweep "
                "a parameter, or use the mode pairs"
            )
        if fault:
            raise InvalidRequest(fault, field="mode", value=self.mode)

    def _record(self, key: str) -> dict[str, Any]:
        return next(clip for clip in self._clips if clip["key"] == key)

    def _new(self, *clips: str, **fields: Any) -> Trial:
        return Trial(secrets.token_hex(16), self.mode, clips, **fields)

    def _sides(self, clips: list[str]) -> list[str]:
        return [clips[index] for index in self._rng.permutation(len(clips))]

    def _draw_repeat(self) -> Trial | None:
        """Return an earlier question again, with A and B exchanged, where it is time for one."""
        own = self._own
        if self.mode == "abx" or len(own) % REPEAT_EVERY != REPEAT_EVERY - 1:
            return None
        repeated = {answer.repeats for answer in own}
        earlier = [
            answer
            for answer in own[:-REPEAT_AFTER]
            if answer.repeats is None and answer.id not in repeated and not is_skipped(answer)
            if self._can_hear(answer)
        ]
        if not earlier:
            return None
        again = earlier[self._rng.integers(len(earlier))]
        if isinstance(again, RatingAnswer):
            return self._new(again.clip, repeats=again.id)
        return self._new(again.b, again.a, repeats=again.id)

    def _can_hear(self, answer: Answer) -> bool:
        keys = {clip["key"] for clip in self._clips}
        return keys.issuperset(clips_of(answer))

    @cached_property
    def _pairs(self) -> Any:
        """Every two clips that may be compared, as numbers in `_clips`."""
        if len(self._clips) > CLIPS_MAX:
            chosen = self._rng.choice(len(self._clips), CLIPS_MAX, replace=False)
            self._clips = [self._clips[index] for index in sorted(chosen)]
        return candidate_pairs([clip["prompt"] for clip in self._clips])

    def _draw_pair(self) -> Trial | None:
        """Return the comparison that is expected to tell most; each is asked once."""
        number = {clip["key"]: index for index, clip in enumerate(self._clips)}
        known = [
            answer
            for answer in self._given
            if isinstance(answer, PairAnswer) and answer.a in number and answer.b in number
        ]
        asked = {
            frozenset((number[answer.a], number[answer.b]))
            for answer in known
            if answer.listener == self.listener
        }
        left = np.array([pair for pair in self._pairs if frozenset(pair.tolist()) not in asked])
        if not len(left):
            return None
        compared = [[number[a.a], number[a.b]] for a in known if not is_skipped(a)]
        design = Design(np.array(compared, int).reshape(-1, 2), len(self._clips))
        pair = choose_pair(left, design, self._rng)
        return self._new(*self._sides([self._clips[index]["key"] for index in pair]))

    @cached_property
    def _contrasts(self) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
        """By parameter, every two clips that differ in it alone, from one end to the other.

        The ends of a parameter whose values are numbers: what cannot be heard between them is not
        heard between any others.
        """
        contrasts = {}
        for parameter in self.table.parameters:
            if parameter == "prompt":
                continue
            others = [name for name in self.table.swept if name != parameter]
            values = {clip[parameter] for clip in self._clips}
            if is_ordered(self.table.rows[parameter]):
                values = {min(values), max(values)}
            groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for clip in self._clips:
                if clip[parameter] in values:
                    groups.setdefault(tuple(clip[name] for name in others), []).append(clip)
            pairs = [
                pair
                for group in groups.values()
                for pair in itertools.combinations(group, 2)
                if pair[0]["audio_sha256"] != pair[1]["audio_sha256"]
            ]
            if pairs:
                contrasts[parameter] = pairs
        return contrasts

    def _draw_abx(self) -> Trial:
        """Return a question about the parameter that this listener was asked about least.

        X has another seed than A and B where there is one: two clips of different parameters are
        different pieces of music, and telling these apart does not show that the parameter is
        heard.
        """
        asked = [parameter for answer in self._own for parameter in self._apart(answer)]
        counts = {name: asked.count(name) for name in self._contrasts}
        least = [name for name, count in counts.items() if count == min(counts.values())]
        pairs = self._contrasts[least[self._rng.integers(len(least))]]
        first, second = pairs[self._rng.integers(len(pairs))]
        a, b = self._sides([first["key"], second["key"]])
        x_is: Literal["a", "b"] = "a" if self._rng.random() < 0.5 else "b"
        target = self._record(a if x_is == "a" else b)
        cell = [name for name in self.table.swept if name != "seed"]
        sounds = {first["audio_sha256"], second["audio_sha256"]}
        alike = [
            clip["key"]
            for clip in self._clips
            if all(clip[name] == target[name] for name in cell)
            and clip["audio_sha256"] not in sounds
        ]
        x = alike[self._rng.integers(len(alike))] if alike else target["key"]
        return self._new(a, b, x, x_is=x_is)

    def _apart(self, answer: Answer) -> list[str]:
        """Return the parameters in which A and B of an earlier question differ."""
        if not isinstance(answer, AbxAnswer) or not self._can_hear(answer):
            return []
        a, b = self._record(answer.a), self._record(answer.b)
        return [name for name in self._contrasts if a[name] != b[name]]

    def _draw_rating(self) -> Trial | None:
        """Return a clip that this listener has not rated yet."""
        rated = {answer.clip for answer in self._own if isinstance(answer, RatingAnswer)}
        left = [clip["key"] for clip in self._clips if clip["key"] not in rated]
        return self._new(left[self._rng.integers(len(left))]) if left else None
