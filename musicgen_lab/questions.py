"""What can be asked of a run in numbers: spread, effects, trends, distances, a map. Frames out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.request import SWEEP_ORDER
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


class Questions:
    """The half of `Results` that answers in numbers; the methods are in `analysis/`."""

    frame: pd.DataFrame
    _run: RunFolder

    @property
    def swept(self) -> tuple[str, ...]:
        """The request's fields that take more than one value here."""
        return tuple(name for name in SWEEP_ORDER if self.frame[name].nunique() > 1)

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
            (clips with a value), and `low` and `high`, the interval of the mean (NaN
            under three), in the feature's unit.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        from musicgen_lab.stats.effects import summarise

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
            As `musicgen_lab.stats.effects.main_effects`; without rows where nothing but the
            seed is swept.

        Raises
        ------
        InvalidRequest
            When there is no such feature.
        """
        from musicgen_lab.stats.effects import main_effects

        return main_effects(self.frame, self.parameters, _features(features), alpha=alpha)

    def trends(self, features: Sequence[str] | None = None, *, alpha: float = 0.05) -> pd.DataFrame:
        """Return how steadily every feature rises or falls with every swept number.

        Works for designs without a grid too. The table is that of
        `musicgen_lab.analysis.trends.trends`; parameters and errors are those of `effects`.
        """
        from musicgen_lab.stats.trends import trends

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

        The table is that of `musicgen_lab.stats.effects.interactions`.

        Raises
        ------
        InvalidRequest
            When one of the two is not swept here, or there is no such feature.
        """
        from musicgen_lab.stats.effects import interactions

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
        from musicgen_lab.runs.signatures import signatures_of

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
            `musicgen_lab.stats.principal_map`.

        Raises
        ------
        InvalidRequest
            When under three clips sound, the features are all the same, or there is no such one.
        """
        from musicgen_lab.stats.principal_map import principal_map

        names = _features(features)
        try:
            found = principal_map(self.frame[names].astype("Float64").astype(float).to_numpy())
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

    def text_similarity(self, source: str = "laion/larger_clap_music") -> pd.DataFrame:
        """Return how well every clip fits its prompt, as a CLAP model judges it.

        Needs the `perceptual` extra and, the first time, a network; what is known is kept in the
        run folder.

        Parameters
        ----------
        source : str
            The model: a Hub id or a folder; see `musicgen_lab.analysis.perceptual.Clap`.

        Returns
        -------
        pandas.DataFrame
            One row per clip: `key`, the swept fields, `prompt` and `text_similarity`, -1 to 1 (NaN
            for failed and silent clips).

        Raises
        ------
        ModelUnavailable
            When the extra is missing, or the model is not there and cannot be fetched.
        """
        from musicgen_lab.runs.text_similarity import text_similarities

        columns = list(dict.fromkeys(["key", *self.swept, "prompt"]))
        similarities = text_similarities(self.frame, self._run, source)
        return self.frame[columns].assign(text_similarity=similarities)


def _features(names: Sequence[str] | None) -> list[str]:
    """Return the features by name, or all that are numbers."""
    from musicgen_lab.analysis.features import FEATURES, NUMBERS

    for name in names or ():
        if name not in FEATURES:
            raise InvalidRequest(
                f"unknown feature {name!r}; the features are {', '.join(FEATURES)}", field=name
            )
        if FEATURES[name].kind == "text":
            raise InvalidRequest(
                f"{name} is a {FEATURES[name].unit} and has no mean: count its values in the frame",
                field=name,
            )
    return [*NUMBERS] if names is None else [*names]
