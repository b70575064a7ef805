"""`Results`: the tidy frame of a run, one row per clip, with its parameters and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.request import SWEEP_ORDER
from musicgen_lab.results_frame import build_frame
from musicgen_lab.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

    from musicgen_lab.drawing import Drawing


class Results:
    """The results of a run folder: every clip that sweeps made or tried there.

    Attributes
    ----------
    folder : Path
        The run folder.
    frame : pandas.DataFrame
        One row per clip: `key`, every field of the request, `status` ("ok" or "failed"), `error`,
        `attempts`, `path` of the sound relative to the folder, its format, `elapsed_s`, who made
        it, and its features (`musicgen_lab.analysis.features`). The same as `results.parquet`.
    missing : int
        Clips that were asked for and not tried yet.
    """

    def __init__(self, run: RunFolder, frame: pd.DataFrame, missing: int) -> None:
        self._run = run
        self.frame = frame
        self.missing = missing

    @classmethod
    def open(cls, folder: str | Path) -> Results:
        """Read a run folder, measure what is not measured yet, and save the frame as Parquet.

        Raises
        ------
        RunFolderError
            When there is no run in the folder.
        """
        run = RunFolder.started(folder)
        records = {record.key: record for record in run.store.records()}
        asked = [request.key() for request in run.asked()]
        order = [key for key in asked if key in records]
        order += [key for key in records if key not in set(asked)]
        frame = build_frame([records[key] for key in order], run)
        return cls(run, frame, missing=sum(key not in records for key in asked))

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.path

    @property
    def results_path(self) -> Path:
        """The frame as Parquet."""
        return self._run.results_path

    @property
    def sweeps(self) -> list[dict[str, Any]]:
        """What was asked of the folder, the oldest first: `design`, `asked_at`, `lab_version`."""
        keep = {"design", "asked_at", "lab_version"}
        return [sweep.model_dump(include=keep) for sweep in self._run.sweeps]

    @property
    def swept(self) -> tuple[str, ...]:
        """The request's fields that take more than one value here."""
        return tuple(name for name in SWEEP_ORDER if self.frame[name].nunique() > 1)

    def __repr__(self) -> str:
        failed = int((self.frame["status"] == "failed").sum())
        axes = " x ".join(self.swept) or "one request"
        return (
            f"<Results of {axes}: {len(self.frame) - failed} clips, {failed} failed, "
            f"{self.missing} missing, in {self.folder}>"
        )

    def clip(self, key: str) -> Clip:
        """Return the clip of a row's key.

        Raises
        ------
        KeyError
            When that request has no finished clip.
        """
        return self._run.store.clip(key)

    def select(self, **fields: Any) -> Results:
        """Return the results of the rows whose fields have the given values.

        Parameters
        ----------
        **fields
            Any column of the frame, with a value or a list of values.

        Raises
        ------
        InvalidRequest
            When a column is unknown, or no row is left.
        """
        rows = self.frame
        for name, wanted in fields.items():
            if name not in rows.columns:
                raise InvalidRequest(
                    f"unknown column {name!r}; the columns are {', '.join(rows.columns)}",
                    field=name,
                )
            values = (
                [wanted] if isinstance(wanted, str) or not hasattr(wanted, "__iter__") else wanted
            )
            rows = rows[rows[name].isin(list(values))]
            if rows.empty:
                there = ", ".join(str(value) for value in self.frame[name].unique()[:12])
                raise InvalidRequest(
                    f"no clip has {name} {wanted!r} together with the rest; there is {there}",
                    field=name,
                    value=wanted,
                )
        return Results(self._run, rows.reset_index(drop=True), missing=0)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The swept fields that make the cells: all but the seed, whose clips are replicates."""
        return tuple(name for name in self.swept if name != "seed")

    def summary(self, feature: str, *, confidence: float = 0.95) -> pd.DataFrame:
        """Return a feature's mean and spread over seeds in every cell.

        Parameters
        ----------
        feature : str
            One of `musicgen_lab.analysis.features.FEATURES`.
        confidence : float
            Of the interval.

        Returns
        -------
        pandas.DataFrame
            One row per cell: the swept fields, then `mean`, `sd` (over seeds, NaN for one), `n`
            (clips with a value), and `low` and `high`, the bootstrap interval of the mean (NaN
            under three), in the feature's unit.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        from musicgen_lab.analysis.statistics import summarise

        (feature,) = _features([feature])
        cell = list(self.parameters) or ["prompt"]
        return summarise(self.frame, cell, feature, confidence=confidence)

    def effects(
        self, features: Sequence[str] | None = None, *, alpha: float = 0.05
    ) -> pd.DataFrame:
        """Return how much every swept parameter moves every feature, and how certain that is.

        Parameters
        ----------
        features : sequence of str, optional
            All that are numbers if not given. Fewer make each claim easier to prove.
        alpha : float
            The chance of any false claim in the whole table.

        Returns
        -------
        pandas.DataFrame
            As `musicgen_lab.analysis.statistics.main_effects`; without rows where nothing but the
            seed is swept.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        from musicgen_lab.analysis.statistics import main_effects

        return main_effects(self.frame, self.parameters, _features(features), alpha=alpha)

    def trends(self, features: Sequence[str] | None = None, *, alpha: float = 0.05) -> pd.DataFrame:
        """Return how steadily every feature rises or falls with every swept number.

        Works for designs without a grid too. The table is that of
        `musicgen_lab.analysis.trends.trends`; parameters and errors are those of `effects`.
        """
        from musicgen_lab.analysis.trends import trends

        return trends(self.frame, self.parameters, _features(features), alpha=alpha)

    def interactions(
        self,
        first: str = "temperature",
        second: str = "cfg_coef",
        features: Sequence[str] | None = None,
        *,
        alpha: float = 0.05,
    ) -> pd.DataFrame:
        """Return whether the effect of one swept parameter depends on another.

        The table is that of `musicgen_lab.analysis.statistics.interactions`.

        Raises
        ------
        InvalidRequest
            When one of the two is not swept here, or there is no such feature.
        """
        from musicgen_lab.analysis.statistics import interactions

        for name in (first, second):
            if name not in self.parameters:
                raise InvalidRequest(
                    f"{name!r} is not swept here; swept are {', '.join(self.parameters) or 'none'}",
                    field=name,
                )
        return interactions(
            self.frame,
            first,
            second,
            _features(features),
            parameters=self.parameters,
            alpha=alpha,
        )

    def listen(self, features: Sequence[str] | None = None, *, matched: bool = False) -> HTML:
        """Show every clip with its picture, a player and its values (`listening.listen`)."""
        from musicgen_lab.listening import listen

        return listen(self, features=features, matched=matched)

    def spectrograms(self, **fixed: Any) -> Drawing:
        """Draw all spectrograms on one scale (`plots.spectrogram_grid`)."""
        from musicgen_lab.plots import spectrogram_grid

        return spectrogram_grid(self, **fixed)

    def heatmap(self, feature: str, **fixed: Any) -> Drawing:
        """Draw a feature over the grid with its spread (`plots.heatmap`)."""
        from musicgen_lab.plots import heatmap

        return heatmap(self, feature, **fixed)

    def effects_plot(self, features: Sequence[str] | None = None) -> Drawing:
        """Draw the effects of every swept parameter with intervals (`plots.effects`)."""
        from musicgen_lab.plots import effects

        return effects(self, features)

    def compare(self, a: str, b: str, features: Sequence[str] | None = None) -> Drawing:
        """Draw the clips of two keys side by side with their difference (`plots.compare`)."""
        from musicgen_lab.plots import compare

        return compare(self.clip(a), self.clip(b), features)

    def distances(self, distance: str = "mel_cepstral_db") -> pd.DataFrame:
        """Return how far every clip is from every other.

        Parameters
        ----------
        distance : str
            One of `musicgen_lab.analysis.distances.DISTANCES`.

        Returns
        -------
        pandas.DataFrame
            Rows and columns are the clips' keys, in the order of the frame; NaN for failed and
            silent clips.

        Raises
        ------
        InvalidRequest
            When there is no such distance, or the clips have different sample rates.
        """
        import pandas as pd

        from musicgen_lab.analysis.distances import DISTANCES
        from musicgen_lab.results_signatures import signatures_of

        if distance not in DISTANCES:
            raise InvalidRequest(
                f"unknown distance {distance!r}; the distances are {', '.join(DISTANCES)}",
                field="distance",
                value=distance,
            )
        rates = self.frame["sample_rate_hz"].dropna().unique()
        if len(rates) > 1:
            raise InvalidRequest(
                f"clips of {', '.join(map(str, rates))} Hz cannot be compared: select one model"
            )
        apart = DISTANCES[distance].measure(signatures_of(self.frame, self._run))
        keys = pd.Index(self.frame["key"], name="key")
        return pd.DataFrame(apart, index=keys, columns=keys)

    def cell_distances(self, distance: str = "mel_cepstral_db") -> pd.DataFrame:
        """Return how far the clips of every cell are from those of every other, on average.

        On the diagonal is a cell's diversity: how far two clips are that differ in their seed
        alone. Cells differ where what is beside the diagonal is larger than what is on it.
        Parameters and errors are those of `distances`.

        Returns
        -------
        pandas.DataFrame
            Rows and columns are the cells: a MultiIndex of the swept fields.
        """
        import pandas as pd

        from musicgen_lab.analysis.distances import mean_distances

        apart = self.distances(distance).to_numpy()
        by = list(self.parameters) or ["prompt"]
        cells = self.frame.groupby(by, sort=False, dropna=False)
        names = pd.MultiIndex.from_frame(self.frame[by].drop_duplicates())
        between = mean_distances(apart, cells.ngroup().tolist())
        return pd.DataFrame(between, index=names, columns=names)

    def diversity(self) -> pd.DataFrame:
        """Return how different the clips of every cell are that differ in their seed alone.

        Returns
        -------
        pandas.DataFrame
            One row per cell: the swept fields, `n` (clips made), and the mean distance between two
            clips of the cell by each of `musicgen_lab.analysis.distances.DISTANCES`; NaN where
            under two clips sound.

        Raises
        ------
        InvalidRequest
            When the clips have different sample rates.
        """
        import numpy as np

        from musicgen_lab.analysis.distances import DISTANCES

        by = list(self.parameters) or ["prompt"]
        cells = self.frame.groupby(by, sort=False, dropna=False)
        spread = {name: np.diag(self.cell_distances(name)) for name in DISTANCES}
        return cells["path"].count().rename("n").reset_index().assign(**spread)

    def map_coordinates(self, features: Sequence[str] | None = None) -> pd.DataFrame:
        """Lay the clips out on a plane, those with like features near each other.

        Parameters
        ----------
        features : sequence of str, optional
            All that are numbers if not given.

        Returns
        -------
        pandas.DataFrame
            One row per clip: `key`, the swept fields, `x` and `y` (NaN for failed and silent
            clips). `attrs` has `explained`, the share of the features' variance along x and y, and
            `loadings`, for every feature used how much it counts along them; see
            `musicgen_lab.analysis.principal_map`.

        Raises
        ------
        InvalidRequest
            When under three clips sound, the features are all the same, or there is no such one.
        """
        from musicgen_lab.analysis.principal_map import principal_map

        names = _features(features)
        try:
            found = principal_map(self.frame[names].to_numpy(float))
        except ValueError as error:
            raise InvalidRequest(f"there is no map of this run: {error}") from error
        x, y = found.coordinates.T
        placed = self.frame[["key", *self.swept]].assign(x=x, y=y)
        placed.attrs["explained"] = found.explained.tolist()
        placed.attrs["loadings"] = {
            names[number]: loading.tolist()
            for number, loading in zip(found.used, found.loadings.T, strict=True)
        }
        return placed


def _features(names: Sequence[str] | None) -> list[str]:
    """Return the features by name, or all that are numbers."""
    from musicgen_lab.analysis.features import FEATURES, NUMBERS

    for name in names or ():
        if name not in FEATURES:
            raise InvalidRequest(
                f"unknown feature {name!r}; the features are {', '.join(FEATURES)}", field=name
            )
    return [*NUMBERS] if names is None else [*names]
