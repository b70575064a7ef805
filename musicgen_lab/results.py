"""`Results`: the results of a run for use in a notebook: tables, figures and clips."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.aesthetics import AESTHETICS
from musicgen_lab.analysis.features import numeric_features
from musicgen_lab.analysis.perceptual import CLAP
from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest, packages_needed
from musicgen_lab.formatting import short
from musicgen_lab.runs.run_table import RunTable

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from ipywidgets import VBox

    from musicgen_lab.figures.drawing import Drawing
    from musicgen_lab.listening.blind.session import Mode
    from musicgen_lab.stats.preferences import PreferenceStudy
    from musicgen_lab.stats.study_tables import StudyTables


class Results:
    """The results of a run folder: every clip that sweeps made or attempted there.

    Attributes
    ----------
    table : RunTable
        The data that all methods read.
    made_here : frozenset of str
        The keys of the clips that were made, or failed, in the call that returned these results;
        empty where they were read from a folder. Other processes may have made the rest.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> results = lab.Results.open("runs/guitar")
    >>> results.frame[["temperature", "cfg_coef", "seed"]].head(2)
       temperature  cfg_coef  seed
    0          0.7       1.0     0
    1          0.7       1.0     1
    """

    def __init__(self, table: RunTable, *, made_here: frozenset[str] = frozenset()) -> None:
        self.table = table
        self.made_here = made_here

    @classmethod
    def open(cls, folder: str | Path) -> Results:
        """Read a run folder.

        Parameters
        ----------
        folder : str or Path
            The run folder: a sweep's `--out`.

        Raises
        ------
        RunFolderError
            When there is no run in the folder.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> results
        <Results of temperature x cfg_coef x seed: 12 clips, 0 failed, 0 missing, in runs/guitar>
        """
        return cls(RunTable.open(folder))

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the table, one row per clip; that of the whole run is in `results.parquet`.

        Clips that are new are measured when it is first read.

        Columns: `key`, every field of the request, `status` ("ok" or "failed"), `error`,
        `attempts`, `path` of the sound relative to the folder, its format, `elapsed_s`, who made
        it, and its features (`musicgen_lab.analysis.features`).
        """
        return self.table.frame.copy()

    @property
    def missing(self) -> int:
        """The number of requested clips that have not been attempted yet."""
        return self.table.missing

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.table.folder

    @property
    def results_path(self) -> Path:
        """The whole run's frame as Parquet; clips that are new are measured for it."""
        self.table.frame  # noqa: B018
        return self.table.run.results_path

    @property
    def sweeps(self) -> list[dict[str, Any]]:
        """The sweeps of the folder, the oldest first: `design`, `asked_at`, `lab_version`."""
        return self.table.sweeps

    @property
    def swept(self) -> tuple[str, ...]:
        """The request's fields that take more than one value here."""
        return self.table.swept

    @property
    def parameters(self) -> tuple[str, ...]:
        """The swept fields that define the cells: all but the seed, whose clips are replicates."""
        return self.table.parameters

    def __repr__(self) -> str:
        failed = int((self.table.rows["status"] == "failed").sum())
        axes = " x ".join(self.swept) or "one request"
        return (
            f"<Results of {axes}: {len(self.table.rows) - failed} clips, {failed} failed, "
            f"{self.missing} missing, in {self.folder}>"
        )

    def clip(self, key: str) -> Clip:
        """Return the clip of a row's key, or of its first characters, as tables show them.

        Parameters
        ----------
        key : str
            As in the frame, or the beginning of it.

        Raises
        ------
        InvalidRequest
            When the keys of several rows begin with them.
        KeyError
            When that request has no finished clip.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> clip = results.clip(results.frame["key"][0])
        >>> clip.samples.shape, clip.sample_rate
        ((1, 32000), 32000)
        """
        return self.table.clip(key)

    def select(self, **fields: Any) -> Results:
        """Return the results of the rows whose columns have the given values.

        Parameters
        ----------
        **fields
            Any column of the frame, with a value or a list of values.

        Raises
        ------
        InvalidRequest
            When a column is unknown, or no row is left.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> results.select(temperature=0.7, seed=[0, 1])
        <Results of cfg_coef x seed: 4 clips, 0 failed, 0 missing, in runs/guitar>
        """
        return Results(self.table.select(**fields))

    def summary(self, feature: str, *, confidence: float = 0.95) -> pd.DataFrame:
        """Return a feature's mean and spread over seeds in every cell.

        Parameters
        ----------
        feature : str
            One of `musicgen_lab.analysis.features.FEATURES`.
        confidence : float
            Of the interval, above 0 and below 1.

        Returns
        -------
        pandas.DataFrame
            One row per cell: the swept fields, then `mean`, `sd` (over seeds, NaN for one), `n`
            (clips with a value), and `low` and `high`, the interval of the mean (NaN
            under three), in the feature's unit.

        Raises
        ------
        InvalidRequest
            When there is no such feature, or `confidence` cannot be.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> summary = results.summary("spectral_centroid_hz")
        >>> summary[["temperature", "cfg_coef", "n"]]
           temperature  cfg_coef  n
        0          0.7       1.0  3
        1          0.7       3.0  3
        2          1.3       1.0  3
        3          1.3       3.0  3
        """
        from musicgen_lab.stats.run_features import with_run_features
        from musicgen_lab.stats.summary import summarise

        (feature,) = numeric_features([feature])
        _check_level("confidence", confidence)
        cell = self.table.cell_fields
        return summarise(
            with_run_features(self.table, [feature]).frame, cell, feature, confidence=confidence
        )

    def effects(
        self, features: Sequence[str] | None = None, *, alpha: float = 0.05
    ) -> pd.DataFrame:
        """Return the effect of every swept parameter on every feature, with its significance.

        The same table as in `plot_effects` and in the report: effects and interactions are
        corrected together.

        Parameters
        ----------
        features : sequence of str, optional
            `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given. With fewer features,
            the correction is weaker.
        alpha : float
            The family-wise error rate of the study, above 0 and below 1.

        Returns
        -------
        pandas.DataFrame
            As `musicgen_lab.stats.study_tables.StudyTables.effects`; without rows if only the seed
            is swept.

        Raises
        ------
        InvalidRequest
            When there is no such feature, or `alpha` cannot be.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> effects = results.effects(["loudness_lufs", "onset_rate_hz"])
        >>> effects[["parameter", "feature"]]
             parameter        feature
        0  temperature  loudness_lufs
        1  temperature  onset_rate_hz
        2     cfg_coef  loudness_lufs
        3     cfg_coef  onset_rate_hz
        """
        return _study(self.table, features, alpha).effects.copy()

    def trends(self, features: Sequence[str] | None = None, *, alpha: float = 0.05) -> pd.DataFrame:
        """Return the trend of every feature with every swept number.

        Works for designs without a grid too. The table is that of
        `musicgen_lab.stats.trends.trends`; parameters and errors are those of `effects`.

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.
        alpha : float
            The family-wise error rate of the study.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> len(results.trends(["loudness_lufs"]))
        2
        """
        return _study(self.table, features, alpha).trends.copy()

    def interactions(
        self, features: Sequence[str] | None = None, *, alpha: float = 0.05
    ) -> pd.DataFrame:
        """Return whether the effect of one swept parameter depends on another.

        One row for every feature and every two parameters that are numbers and fully crossed, as
        `musicgen_lab.stats.study_tables.StudyTables.interactions`; parameters and errors are those
        of `effects`.

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.
        alpha : float
            The family-wise error rate of the study.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> len(results.interactions(["loudness_lufs"]))
        1
        """
        return _study(self.table, features, alpha).interactions.copy()

    def distances(self, distance: str = "mel_cepstral_db") -> pd.DataFrame:
        """Return the distance between every two clips (`stats.distances.clip_distances`).

        Parameters
        ----------
        distance : str
            One of `musicgen_lab.analysis.distances.DISTANCES`.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> results.distances().shape
        (12, 12)
        """
        from musicgen_lab.stats.distances import clip_distances

        return clip_distances(self.table, distance)

    def cell_distances(self, distance: str = "mel_cepstral_db") -> pd.DataFrame:
        """Return the mean distance between every two cells (`stats.distances.cell_distances`).

        Parameters
        ----------
        distance : str
            One of `musicgen_lab.analysis.distances.DISTANCES`.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> results.cell_distances().shape
        (4, 4)
        """
        from musicgen_lab.stats.distances import cell_distances

        return cell_distances(self.table, distance)

    def diversity(self) -> pd.DataFrame:
        """Return the diversity of the seeds in every cell (`stats.distances.diversity`).

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> list(results.diversity()["n"])
        [3, 3, 3, 3]
        """
        from musicgen_lab.stats.distances import diversity

        return diversity(self.table)

    def near_copies(self, at_least: float = 0.9) -> pd.DataFrame:
        """Return the seeds whose clips sound nearly the same (`stats.near_copies.near_copies`).

        Parameters
        ----------
        at_least : float
            Lowest similarity of a pair, above 0 up to 1.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> pairs = results.near_copies()
        """
        from musicgen_lab.stats.near_copies import near_copies

        return near_copies(self.table, at_least)

    def map_coordinates(self, features: Sequence[str] | None = None) -> pd.DataFrame:
        """Return coordinates of the clips on a plane (`stats.principal_map.map_coordinates`).

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; all that are numbers if not given.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> list(results.map_coordinates())
        ['key', 'temperature', 'cfg_coef', 'seed', 'x', 'y']
        """
        from musicgen_lab.stats.principal_map import map_coordinates

        return map_coordinates(self.table, features)

    def text_similarity(self, source: str = CLAP) -> pd.DataFrame:
        """Return the similarity between every clip and its prompt, by a CLAP model.

        Needs the `perceptual` extra and, the first time, a network; values are kept in the run
        folder.

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
            When the extra is missing, or the model is not available and cannot be fetched.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> similarity = results.text_similarity()  # doctest: +SKIP
        """
        from musicgen_lab.runs.derived import text_similarities

        similarities = text_similarities(self.table, source)
        return self._identified().assign(text_similarity=similarities)

    def reference_distance(self, folder: str | Path, source: str = CLAP) -> pd.DataFrame:
        """Return how far every cell is from a folder of recordings, by a CLAP model.

        See `stats.reference_distance.reference_distance`. Needs the `perceptual` extra and, the
        first time, a network; the clips' embeddings are kept in the run folder.

        Parameters
        ----------
        folder : str or Path
            With at least 10 sound files of the music that clips should be like.
        source : str
            The model: a Hub id or a folder.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> distances = results.reference_distance("guitar_recordings")  # doctest: +SKIP
        """
        from musicgen_lab.stats.reference_distance import reference_distance

        return reference_distance(self.table, folder, source)

    def aesthetics(self, source: str = AESTHETICS) -> pd.DataFrame:
        """Return the predicted ratings of every clip, by Meta's Audiobox Aesthetics.

        Needs the `perceptual` extra and, the first time, a network; values are kept in the run
        folder. The weights are licensed CC-BY 4.0.

        Parameters
        ----------
        source : str
            The model: a Hub id or a folder; see `musicgen_lab.analysis.aesthetics.Aesthetics`.

        Returns
        -------
        pandas.DataFrame
            One row per clip: `key`, the swept fields, `prompt`, and four predicted ratings, each
            about 1 to 10 (NaN for failed and silent clips): `content_enjoyment`, how much a
            listener likes it; `content_usefulness`, as material for other productions;
            `production_complexity`, how much happens at once, neither good nor bad;
            `production_quality`, how clean and well made it sounds.

        Raises
        ------
        ModelUnavailable
            When the extra is missing, or the model is not available and cannot be fetched.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> scores = results.aesthetics()  # doctest: +SKIP
        """
        from musicgen_lab.runs.derived import aesthetic_scores

        return self._identified().assign(**aesthetic_scores(self.table, source))

    @packages_needed("listening")
    def listen(self, features: Sequence[str] | None = None, *, matched: bool = False) -> HTML:
        """Show every clip's spectrogram, player and values (`listening.grid.listen`).

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.
        matched : bool
            Play every clip at the same loudness.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> players = results.select(seed=0).listen(["loudness_lufs"])
        """
        from musicgen_lab.listening.grid import listen

        return listen(self.table, features=features, matched=matched)

    @packages_needed("listening")
    def listen_blind(self, listener: str = "listener", mode: Mode = "pairs") -> VBox:
        """Ask which clips are better without telling which they are (`listening.blind`).

        The same test as `musicgen-lab listen`; answers are appended to the run folder as they are
        given, and a later one of the same listener goes on where the last one ended.

        Parameters
        ----------
        listener : str
            Who listens.
        mode : {"pairs", "abx", "rate"}
            Which of two clips is preferred, whether a parameter can be heard, or ratings from 0 to
            100 of quality and of fit to the prompt.

        Returns
        -------
        ipywidgets.VBox

        Raises
        ------
        InvalidRequest
            When the run has nothing to compare.
        RunFolderUnwritable
            When answers cannot be written.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> widget = results.listen_blind("Ada", "abx")
        """
        from musicgen_lab.listening.blind.session import BlindSession
        from musicgen_lab.listening.blind.widget import blind_widget

        return blind_widget(BlindSession(self.table, listener, mode))

    def answers(self) -> pd.DataFrame:
        """Return what listeners answered in blind tests, one row per answer.

        Columns are the fields of `musicgen_lab.runs.answers`: `listener`, `kind`, the keys of the
        clips, `choice`, `quality`, `fit`, `comment` and others.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> len(results.answers())
        0
        """
        return self.preferences().answers.copy()

    def preferences(self) -> PreferenceStudy:
        """Return what blind tests say of the parameters (`stats.preferences`).

        Its `effects` say how parameters change what is preferred and how it is rated, `features()`
        which features go with being preferred, `abx` whether parameters can be heard, and
        `listeners` how consistent each listener is.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> effects = results.preferences().effects
        """
        from musicgen_lab.stats.preferences import PreferenceStudy

        return PreferenceStudy.of(self.table)

    def plot_spectrograms(self, **fixed: Any) -> Drawing:
        """Plot all spectrograms on one scale (`figures.spectrogram_grid.plot_spectrograms`).

        Parameters
        ----------
        **fixed
            Values of swept fields that are neither down nor across, such as `seed=1`.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> drawing = results.plot_spectrograms(seed=1)
        >>> drawing.save("grid.png")
        PosixPath('grid.png')
        """
        from musicgen_lab.figures.spectrogram_grid import plot_spectrograms

        return plot_spectrograms(self.table, **fixed)

    def plot_heatmap(self, feature: str, **fixed: Any) -> Drawing:
        """Plot a feature over the grid with its spread (`figures.heatmap.plot_heatmap`).

        Parameters
        ----------
        feature : str
            One of `musicgen_lab.analysis.features.FEATURES`.
        **fixed
            As in `plot_spectrograms`, without the seed.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> drawing = results.plot_heatmap("spectral_centroid_hz")
        """
        from musicgen_lab.figures.heatmap import plot_heatmap

        return plot_heatmap(self.table, feature, **fixed)

    def plot_effects(self, features: Sequence[str] | None = None) -> Drawing:
        """Plot the effects of every swept parameter (`figures.effects.plot_effects`).

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> drawing = results.plot_effects(["loudness_lufs", "onset_rate_hz"])
        """
        from musicgen_lab.figures.effects import plot_effects

        return plot_effects(self.table, features)

    def plot_curves(self, features: Sequence[str] | None = None) -> Drawing:
        """Plot features along every swept parameter, seeds as dots (`figures.curves`).

        Parameters
        ----------
        features : sequence of str, optional
            Names of features; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> drawing = results.plot_curves(["onset_rate_hz"])
        """
        from musicgen_lab.figures.curves import plot_curves

        return plot_curves(self.table, features)

    def plot_drift(self) -> Drawing:
        """Plot how clips of over 30 s change from window to window (`figures.drift.plot_drift`).

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/long")  # doctest: +SKIP
        >>> drawing = results.plot_drift()  # doctest: +SKIP
        """
        from musicgen_lab.figures.drift import plot_drift

        return plot_drift(self.table)

    def plot_map(
        self, colour_by: str | None = None, features: Sequence[str] | None = None
    ) -> Drawing:
        """Plot a map on which similar clips are close (`figures.clip_map.plot_map`).

        Parameters
        ----------
        colour_by : str, optional
            A swept field; the first one if not given.
        features : sequence of str, optional
            Names of features; all that are numbers if not given.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> drawing = results.plot_map(colour_by="temperature")
        """
        from musicgen_lab.figures.clip_map import plot_map

        return plot_map(self.table, colour_by, features)

    def plot_pair(self, a: str, b: str, features: Sequence[str] | None = None) -> Drawing:
        """Plot the clips of two keys with their difference (`figures.pair.plot_pair`).

        Parameters
        ----------
        a, b : str
            Keys, as for `clip`.
        features : sequence of str, optional
            Rows of the table; `musicgen_lab.analysis.features.DEFAULT_FEATURES` if not given.

        Examples
        --------
        >>> import musicgen_lab as lab
        >>> results = lab.Results.open("runs/guitar")
        >>> first, *_, last = results.frame["key"]
        >>> drawing = results.plot_pair(first, last)
        """
        from musicgen_lab.figures.pair import plot_pair

        return plot_pair(self.clip(a), self.clip(b), features)

    def _identified(self) -> pd.DataFrame:
        """Return the identifying columns of each clip: its key, swept fields and prompt."""
        return self.table.frame[list(dict.fromkeys(["key", *self.swept, "prompt"]))]


def _study(table: RunTable, features: Sequence[str] | None, alpha: float) -> StudyTables:
    from musicgen_lab.stats.study_tables import StudyTables

    names = None if features is None else numeric_features(features)
    _check_level("alpha", alpha)
    return StudyTables.of(table, names, alpha=alpha)


def _check_level(name: str, value: float) -> None:
    """Reject what is no probability between 0 and 1."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise InvalidRequest(
            f"{name} must be a number above 0 and below 1, got {short(value)}",
            field=name,
            value=value,
        )
