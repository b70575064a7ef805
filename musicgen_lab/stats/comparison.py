"""Two runs against each other: clips in pairs that differ in the run alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musicgen_lab.analysis.features import averaged_features
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import SWEEP_ORDER
from musicgen_lab.formatting import FieldLabels
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.effects import main_effects
from musicgen_lab.stats.run_features import with_run_features
from musicgen_lab.stats.study_tables import ALPHA

if TYPE_CHECKING:
    import pandas as pd

RUN = "run"


@dataclass(frozen=True)
class Pair:
    """Two clips whose requests are the same but for what is compared.

    Attributes
    ----------
    label : str
        What sets the pair apart from the others, such as "temperature 0.7, seed 0".
    a, b : str
        Keys of the clips in the first and in the second run.
    """

    label: str
    a: str
    b: str


@dataclass(frozen=True)
class Comparison:
    """Two runs and the pairs of clips that they share.

    Attributes
    ----------
    a, b : RunTable
    apart : tuple of str
        Request fields that have one value in each run, and another in the other: what is compared.
    pairs : tuple of Pair
        Finished clips of both runs that agree in every other field.
    """

    a: RunTable
    b: RunTable
    apart: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, a: RunTable, b: RunTable) -> Comparison:
        """Pair the clips of two runs.

        Raises
        ------
        InvalidRequest
            When no finished clip of one run has its counterpart in the other.
        """
        only = [
            {name: {record[name] for record in run.records} for name in SWEEP_ORDER}
            for run in (a, b)
        ]
        apart = tuple(
            name
            for name in SWEEP_ORDER
            if len(only[0][name]) == len(only[1][name]) == 1 and only[0][name] != only[1][name]
        )
        same = [name for name in SWEEP_ORDER if name not in apart]
        finished = [
            {
                tuple(record[name] for name in same): record
                for record in run.records
                if record["status"] == "ok"
            }
            for run in (a, b)
        ]
        shared = [values for values in finished[0] if values in finished[1]]
        if not shared:
            raise InvalidRequest(
                f"no clip of {a.folder} has a counterpart in {b.folder} with the same request; "
                "compare runs of the same prompts, values and seeds"
            )
        shown = [name for name in same if len({finished[0][values][name] for values in shared}) > 1]
        labels = FieldLabels.of(
            list(dict.fromkeys(finished[0][values]["prompt"] for values in shared)),
            a.run.source_names | b.run.source_names,
        )
        pairs = tuple(
            Pair(
                labels.describe({name: finished[0][values][name] for name in shown})
                or "the only clip",
                finished[0][values]["key"],
                finished[1][values]["key"],
            )
            for values in shared
        )
        return cls(a, b, apart, pairs)

    def names(self) -> tuple[str, str]:
        """Say what each run is: its values of the fields that are compared, or its folder."""
        if not self.apart:
            first, second = (run.folder.resolve().name for run in (self.a, self.b))
            return (first, second) if first != second else ("first run", "second run")
        prompts = [run.frame["prompt"].iloc[0] for run in (self.a, self.b)]
        sources = self.a.run.source_names | self.b.run.source_names
        labels = FieldLabels.of(list(dict.fromkeys(prompts)), sources)
        return tuple(  # type: ignore[return-value]
            labels.describe({name: run.frame[name].iloc[0] for name in self.apart})
            for run in (self.a, self.b)
        )

    def differences(self, features: Sequence[str] | None = None) -> pd.DataFrame:
        """Return by how much the second run differs from the first, pair by pair.

        The test is that of `musicgen_lab.stats.effects.main_effects`, corrected for the number of
        features (Holm). Clips that are the same in both runs differ in nothing.

        Parameters
        ----------
        features : sequence of str, optional
            See `musicgen_lab.analysis.features.averaged_features`.

        Returns
        -------
        pandas.DataFrame
            One row per feature, with the columns of
            `musicgen_lab.stats.effects.main_effects`; ``change`` is second minus first.
        """
        import pandas as pd

        names = averaged_features(features)
        frames = []
        for index, (run, side) in enumerate(((self.a, "a"), (self.b, "b")), 1):
            frame = with_run_features(run, names).frame
            keys = [getattr(pair, side) for pair in self.pairs]
            frames.append(frame[frame["key"].isin(keys)].assign(**{RUN: index}))
        both = pd.concat(frames, ignore_index=True)
        by_source = "begin_with" in self.a.swept and "seed" not in self.a.swept
        replicate = "begin_with" if by_source else "seed"
        cells = [name for name in self.a.parameters if name not in (*self.apart, replicate)]
        return main_effects(both, [RUN], names, varied=cells, alpha=ALPHA, replicate=replicate)
