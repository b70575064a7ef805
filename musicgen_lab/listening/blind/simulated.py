"""Simulated listeners of a known taste: to try a blind test out before people listen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.listening.blind.session import BlindSession

NO_DIFFERENCE = 0.5
"""Up to this difference, in log-odds, a simulated listener hears none."""

OWN_TASTE = 0.5
"""Standard deviation, in log-odds, of what a simulated listener finds of a clip besides."""


def answer_by_taste(
    session: BlindSession, taste: Mapping[str, float], *, answers: int, seed: int
) -> None:
    """Answer the questions of a session as a listener of a known taste would.

    Which of two clips is preferred follows the Bradley-Terry model with strengths that are a sum
    of columns, such as "cooler is better", and of an own taste for each clip at random.

    Parameters
    ----------
    session : BlindSession
        Of the mode "pairs".
    taste : Mapping of str to float
        By column of the run's frame: log-odds for each unit of it.
    answers : int
        Until the listener has given so many, those of earlier sessions included.
    seed : int
        Of this listener's chance.

    Raises
    ------
    InvalidRequest
        When the session has another mode, or there is no such column.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> from musicgen_lab.listening.blind.session import BlindSession
    >>> results = lab.Results.open("runs/guitar")
    >>> session = BlindSession(results.table, "a simulated listener")
    >>> answer_by_taste(session, {"temperature": -4.0}, answers=0, seed=0)
    """
    if session.mode != "pairs":
        raise InvalidRequest(
            f"simulated listeners compare pairs; the session's mode is {session.mode}",
            field="mode",
            value=session.mode,
        )
    table = session.table
    frame = table.rows if set(taste) <= set(table.rows) else table.frame  # which measures clips
    missing = [name for name in taste if name not in frame]
    if missing:
        raise InvalidRequest(
            f"there is no column {missing[0]!r} to have a taste in", field=missing[0]
        )
    rng = np.random.default_rng(seed)
    strength = OWN_TASTE * rng.normal(size=len(frame))
    for name, weight in taste.items():
        strength += weight * frame[name].to_numpy(float)
    of_clip = dict(zip(frame["key"], strength, strict=True))
    while session.answered < answers and session.trial is not None:
        a, b = session.trial.clips
        heard = of_clip[a] - of_clip[b] + rng.logistic()
        choice = "none" if abs(heard) <= NO_DIFFERENCE else "a" if heard > 0 else "b"
        session.answer(session.trial.id, choice=choice)
