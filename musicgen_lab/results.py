"""`Results`: the tidy frame of a run, one row per clip, with its parameters and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicgen_lab.clip import Clip
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.questions import Questions
from musicgen_lab.runs.frame import build_frame
from musicgen_lab.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

    from musicgen_lab.figures.drawing import Drawing


class Results(Questions):
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

    def aesthetics(self, source: str = "facebook/audiobox-aesthetics") -> pd.DataFrame:
        """Return how good every clip sounds, as Meta's Audiobox Aesthetics judges it.

        Needs the `perceptual` extra and, the first time, a network; what is known is kept in the
        run folder. The weights are licensed CC-BY 4.0.

        Parameters
        ----------
        source : str
            The model: a Hub id or a folder; see `musicgen_lab.analysis.aesthetics.Aesthetics`.

        Returns
        -------
        pandas.DataFrame
            One row per clip: `key`, the swept fields, `prompt`, and four predicted ratings, each
            about 1 to 10 (NaN for failed and silent clips): `content_enjoyment`, how much a
            listener likes it; `content_usefulness`, as material for something else;
            `production_complexity`, how much goes on at once, neither good nor bad;
            `production_quality`, how clean and well made it sounds.

        Raises
        ------
        ModelUnavailable
            When the extra is missing, or the model is not there and cannot be fetched.
        """
        from musicgen_lab.runs.aesthetics import aesthetic_scores

        columns = list(dict.fromkeys(["key", *self.swept, "prompt"]))
        scores = aesthetic_scores(self.frame, self._run, source)
        return self.frame[columns].assign(**scores)

    def listen(self, features: Sequence[str] | None = None, *, matched: bool = False) -> HTML:
        """Show every clip with its picture, a player and its values (`listening.listen`)."""
        from musicgen_lab.listening.grid import listen

        return listen(self, features=features, matched=matched)

    def spectrograms(self, **fixed: Any) -> Drawing:
        """Draw all spectrograms on one scale (`plots.spectrogram_grid`)."""
        from musicgen_lab.figures.plots import spectrogram_grid

        return spectrogram_grid(self, **fixed)

    def heatmap(self, feature: str, **fixed: Any) -> Drawing:
        """Draw a feature over the grid with its spread (`plots.heatmap`)."""
        from musicgen_lab.figures.plots import heatmap

        return heatmap(self, feature, **fixed)

    def effects_plot(self, features: Sequence[str] | None = None) -> Drawing:
        """Draw the effects of every swept parameter with intervals (`plots.effects`)."""
        from musicgen_lab.figures.plots import effects

        return effects(self, features)

    def map(self, colour_by: str | None = None, features: Sequence[str] | None = None) -> Drawing:
        """Draw all clips near those that are alike (`plots.clip_map`)."""
        from musicgen_lab.figures.plots import clip_map

        return clip_map(self, colour_by, features)

    def compare(self, a: str, b: str, features: Sequence[str] | None = None) -> Drawing:
        """Draw the clips of two keys side by side with their difference (`plots.compare`)."""
        from musicgen_lab.figures.plots import compare

        return compare(self.clip(a), self.clip(b), features)
