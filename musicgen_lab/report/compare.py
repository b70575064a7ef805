"""`make_comparison`: a report of the paired differences between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen_lab.analysis.features import NAMED_FEATURES, chosen_features
from musicgen_lab.errors import packages_needed
from musicgen_lab.figures.facets import Facet
from musicgen_lab.figures.mel_pictures import MelPictures, share_scale
from musicgen_lab.formatting import decimals_within, signed, with_unit
from musicgen_lab.listening.grid import clip_view, frame, shown_features
from musicgen_lab.listening.previews import FilePreviews
from musicgen_lab.report.export import write_page
from musicgen_lab.report.make import NOTEBOOKS
from musicgen_lab.report.notebook import run_notebook
from musicgen_lab.report.sentences import difference_sentences, tests_performed
from musicgen_lab.runs.atomic_io import unwritable
from musicgen_lab.runs.run_folder import refuse_run
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.comparison import Comparison
from musicgen_lab.stats.study_tables import ALPHA, tested
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML

PAIRS_SHOWN = 100
NOTEBOOK = NOTEBOOKS / "comparison_report.ipynb"


@packages_needed("a report")
def make_comparison(
    run_a: str | Path,
    run_b: str | Path,
    out: str | Path,
    *,
    features: Sequence[str] | None = None,
    title: str | None = None,
    self_contained: bool | None = None,
    progress: bool = True,
) -> Path:
    """Compare two runs, such as of two models, in pairs of clips with the same request otherwise.

    Parameters
    ----------
    run_a, run_b : str or Path
        The run folders.
    out : str or Path
        The folder for `report.html`, `report.ipynb` and the sounds; created where it is missing.
    features : sequence of str, optional
        See `musicgen_lab.analysis.features.chosen_features`.
    title : str, optional
        The heading, in place of what differs.
    self_contained : bool, optional
        As for `musicgen_lab.report.make.make_report`.
    progress : bool
        Show a bar.

    Returns
    -------
    Path
        Of `report.html`.

    Raises
    ------
    InvalidRequest
        When the runs have no clips in common, there is no such feature, or `out` is a run.
    RunFolderError, RunFolderUnwritable
        When there is no run in a folder, or `out` cannot be written.
    ReportFailed
        When the notebook ends in an error.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> lab.make_comparison("runs/small", "runs/large", "runs/both")  # doctest: +SKIP
    PosixPath('runs/both/report.html')
    """
    comparison = open_comparison(run_a, run_b)
    names = chosen_features(features)
    folder = Path(out)
    refuse_run(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    given = {"features": names, "title": title or ""}
    folders = {"run_a": Path(run_a), "run_b": Path(run_b), "out": folder}
    notebook = run_notebook(NOTEBOOK, folder, given, folders=folders, progress=progress)
    heading = title or " against ".join(reversed(comparison.names()))
    return write_page(notebook, folder, heading, self_contained=self_contained)


def open_comparison(run_a: str | Path, run_b: str | Path) -> Comparison:
    """Open two run folders and pair their clips."""
    return Comparison.of(RunTable.open(run_a), RunTable.open(run_b))


def heading(comparison: Comparison, title: str = "") -> HTML:
    """Return the heading: which runs are compared, with how many pairs of clips."""
    first, second = comparison.names()
    count = len(comparison.pairs)
    apart = " and ".join(comparison.apart)
    alike = f"whose requests differ in {apart} alone" if apart else "with the same request"
    facts = []
    for name, run, label in (("A", comparison.a, first), ("B", comparison.b, second)):
        models = ", ".join(map(str, run.values("model")))
        prompts = "; ".join(map(str, run.values("prompt")[:4]))
        note = f"{len(run.frame)} clips, {models}, {prompts}"
        facts.append({"name": name, "lines": [label, ""], "note": note})
    return show(
        "report/heading.html.j2",
        title=title or f"{second} against {first}",
        lead=f"{count} pair{'s' if count != 1 else ''} of clips {alike}.",
        facts=facts,
    )


def findings(comparison: Comparison, features: Sequence[str] | None = None) -> HTML:
    """Return the significant differences with their intervals, then a table of all."""
    table = comparison.differences(features)
    rows = []
    for row in table.to_dict("records"):
        feature = NAMED_FEATURES[row["feature"]]
        change, low, high = (float(row[name]) for name in ("change", "low", "high"))
        decimals = decimals_within(low, high) if low == low else 0
        texts = [signed(v, decimals, plus=True) if v == v else "–" for v in (change, low, high)]
        rows.append(
            {
                "feature": feature.mean_label,
                "change": with_unit(texts[0], feature.difference_unit) if change == change else "–",
                "interval": "–" if low != low else f"{texts[1]} to {texts[2]}",
                "seeds": row["seeds"],
                "judged": "not tested"
                if row["note"]
                else "significant"
                if row["significant"]
                else "inconclusive",
                "note": row["note"],
            }
        )
    method = (
        f"{tests_performed(tested(table))}. The probability that any of the differences named "
        f"here is a false positive is at most {ALPHA:.0%} (Holm's correction)."
    )
    sentences = difference_sentences(comparison, table)
    return show("report/differences.html.j2", sentences=sentences, method=method, rows=rows)


def listening(
    comparison: Comparison, features: Sequence[str] | None = None, *, out: str | Path
) -> HTML:
    """Return the pairs of clips side by side, each with its spectrogram and player.

    The audio and pictures are written to `listening/` in the folder `out`.
    """
    a, b = MelPictures(comparison.a), MelPictures(comparison.b)
    share_scale(a, b)
    names, previews = shown_features(comparison.a, features), FilePreviews(Path(out))
    shown = comparison.pairs[:PAIRS_SHOWN]
    runs = [
        (previews.of(run, keys, pictures), {record["key"]: record for record in run.records})
        for run, keys, pictures in (
            (comparison.a, [pair.a for pair in shown], a),
            (comparison.b, [pair.b for pair in shown], b),
        )
    ]
    pairs = []
    for pair in shown:
        cells = [
            clip_view(Facet(0, 0, (records[key],), pair.label), copies.get(key), names)
            for (copies, records), key in zip(runs, (pair.a, pair.b), strict=True)
        ]
        pairs.append({"label": pair.label, "cells": cells})
    return show(
        "report/pairs.html.j2",
        runs=list(zip("AB", comparison.names(), strict=True)),
        pairs=pairs,
        more=len(comparison.pairs) - PAIRS_SHOWN,
        **frame(a, can_match=True),
    )
