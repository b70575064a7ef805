"""`StudyTables`: every effect and interaction of a run, corrected once; or its trends.

Tables, dots in figures, sentences and the index of studies all read them, so that one study gives
one answer. The p-values of a table's questions are corrected together by Holm's method: the chance
of even one false claim among all of them is at most alpha.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from musicgen_lab.analysis.features import averaged_features
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.designs import is_ordered
from musicgen_lab.stats.effects import holm, main_effects, with_claims
from musicgen_lab.stats.interactions import interactions
from musicgen_lab.stats.run_features import with_run_features
from musicgen_lab.stats.trends import trends

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05
"""The chance of even one false claim in a study."""


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The effects, interactions and trends of a run.

    Effects and interactions are one family of questions and are corrected together. Trends ask the
    same of a random design, in which no two clips differ in one parameter alone; they are a family
    of their own.

    Attributes
    ----------
    table : RunTable
    features : tuple of str
        The features to test; each additional one makes the correction stronger.
    alpha : float
    """

    table: RunTable
    features: tuple[str, ...]
    alpha: float = ALPHA

    @classmethod
    def of(
        cls, table: RunTable, features: Iterable[str] | None = None, *, alpha: float = ALPHA
    ) -> StudyTables:
        """Return the tables of a run; they are computed once and kept with it.

        Parameters
        ----------
        table : RunTable
        features : iterable of str, optional
            `DEFAULT_FEATURES` if not given. A text, such as a key, has no mean and is left out.
        alpha : float
            The chance of any false claim.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        names = tuple(averaged_features(features))
        return table.cached(
            (cls, names, alpha), lambda: cls(with_run_features(table, names), names, alpha)
        )

    @property
    def is_random_design(self) -> bool:
        """Whether all clips are from random designs, which have trends rather than effects."""
        return {sweep["design"]["kind"] for sweep in self.table.sweeps} == {"sample"}

    @property
    def effects(self) -> pd.DataFrame:
        """The main effect of every parameter on every feature.

        As `musicgen_lab.stats.effects.main_effects`; empty where nothing but the seed is swept.
        """
        return self._family[0]

    @property
    def interactions(self) -> pd.DataFrame:
        """The interactions of every two parameters that are numbers and fully crossed.

        As `musicgen_lab.stats.interactions.interactions`, with the ends of both parameters' levels
        (`first_lowest` and so on).
        """
        import pandas as pd

        return self._family[1] if self._crossed else pd.DataFrame()

    @cached_property
    def trends(self) -> pd.DataFrame:
        """The trends of every feature; see `musicgen_lab.stats.trends.trends`."""
        return trends(self.table.frame, self.table.parameters, self.features, alpha=self.alpha)

    @cached_property
    def _family(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        import pandas as pd

        frame, parameters = self.table.frame, self.table.parameters
        levels = {name: self.table.values(name) for name in parameters}
        lowest = {name: values[0] for name, values in levels.items()}
        highest = {name: values[-1] for name, values in levels.items()}
        replicate = self.table.replicate
        effects = main_effects(
            frame, parameters, self.features, alpha=self.alpha, replicate=replicate
        )
        pairs = [
            interactions(
                frame,
                first,
                second,
                self.features,
                parameters=parameters,
                alpha=self.alpha,
                replicate=replicate,
            ).assign(
                first_lowest=lowest[first],
                first_highest=highest[first],
                second_lowest=lowest[second],
                second_highest=highest[second],
            )
            for first, second in self._crossed
        ]
        if not pairs:
            return effects, pd.DataFrame()
        crossed = pd.concat(pairs, ignore_index=True)
        p_values = np.concatenate([effects["p_value"], crossed["p_value"]])
        adjusted, adjusted_crossed = np.split(holm(p_values), [len(effects)])
        return (
            with_claims(effects, adjusted, self.alpha),
            with_claims(crossed, adjusted_crossed, self.alpha),
        )

    @cached_property
    def _crossed(self) -> list[tuple[str, str]]:
        """Return every two ordered parameters of which each combination was requested.

        The effect of the first is looked at where the second is lowest and highest; cfg_coef and
        temperature come before the others.
        """
        frame = self.table.frame
        if not self.features:
            return []
        ordered = [name for name in reversed(self.table.parameters) if is_ordered(frame[name])]
        return [
            (first, second)
            for first, second in itertools.combinations(ordered, 2)
            if len(frame[[first, second]].drop_duplicates())
            == frame[first].nunique() * frame[second].nunique()
        ]


def tested(table: pd.DataFrame) -> int:
    """Return how many questions of a table could be tested, and are corrected for."""
    return 0 if table.empty else int(table["p_value"].notna().sum())


def significant(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the significant rows of a table, by ascending p-value."""
    if table.empty:
        return []
    return rows_of(table[table["significant"]].sort_values("p_adjusted", kind="stable"))


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, each by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
