"""Simulated listeners, who compare clips by a taste that is known."""

from __future__ import annotations

import secrets

import numpy as np

from musicgen_lab.runs.answers import PairAnswer
from musicgen_lab.runs.run_table import RunTable


def answer(kind, *, listener="Ada", **fields):
    """Return an answer of its own id."""
    return kind(id=secrets.token_hex(16), listener=listener, session="0" * 32, **fields)


def compare(run, listeners, taste, *, answers=80, seed=0):
    """Let listeners compare clips at random; `taste` gives the strength of a clip's record."""
    rng = np.random.default_rng(seed)
    records = RunTable.of(run).rows.to_dict("records")
    own = rng.normal(size=len(records)) * 0.5
    for listener in listeners:
        for _ in range(answers):
            a, b = rng.choice(len(records), 2, replace=False)
            heard = taste(records[a]) - taste(records[b]) + own[a] - own[b] + rng.logistic()
            choice = "none" if abs(heard) < 0.3 else "a" if heard > 0 else "b"
            keys = {"a": records[a]["key"], "b": records[b]["key"]}
            run.answers.append(answer(PairAnswer, listener=listener, choice=choice, **keys))
