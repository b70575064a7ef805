"""`make_comparison`: two runs become one page of paired differences, to read and to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from musicgen_lab.analysis.features import FEATURES, chosen_features
from musicgen_lab.figures.facets import Facet
from musicgen_lab.figures.mel_pictures import MelPictures, share_scale
from musicgen_lab.formatting import decimals_for, signed, with_unit
from musicgen_lab.listening.grid import LOUDNESS_SWITCH, ClipCells, legend, shown_features, styled
from musicgen_lab.listening.previews import FilePreviews
from musicgen_lab.report.export import write_page
from musicgen_lab.report.make import NOTEBOOKS
from musicgen_lab.report.notebook import run_notebook
from musicgen_lab.report.sentences import difference_sentences
from musicgen_lab.runs.atomic_io import unwritable
from musicgen_lab.runs.run_folder import refuse_run
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.comparison import Comparison
from musicgen_lab.stats.study_tables import ALPHA

if TYPE_CHECKING:
    from IPython.display import HTML

PAIRS_SHOWN = 100
NOTEBOOK = NOTEBOOKS / "comparison_report.ipynb"


def make_comparison(
    run_a: str | Path,
    run_b: str | Path,
    out: str | Path,
    *,
    features: Sequence[str] | None = None,
    title: str | None = None,
    self_contained: bool = False,
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
    self_contained : bool
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
    """Say which runs are compared, in how many pairs of clips."""
    from IPython.display import HTML

    first, second = comparison.names()
    said = title or f"{second} against {first}"
    facts = ""
    for name, run, label in (
        ("A", comparison.a, first),
        ("B", comparison.b, second),
    ):
        prompts = run.values("prompt")
        models = run.values("model")
        facts += (
            f"<div><dt>{name}</dt><dd>{escape(label)}<br><small>{len(run.frame)} clips, "
            f"{escape(', '.join(map(str, models)))}, "
            f"{escape('; '.join(map(str, prompts[:4])))}</small></dd></div>"
        )
    count = len(comparison.pairs)
    apart = escape(" and ".join(comparison.apart))
    alike = f"whose requests differ in {apart} alone" if apart else "with the same request"
    return HTML(
        f'<header><h1>{escape(said)}</h1><p class="lead">{count} pair{"s" if count != 1 else ""} '
        f"of clips {alike}.</p></header>"
        f'<dl class="facts">{facts}</dl>'
    )


def findings(comparison: Comparison, features: Sequence[str] | None = None) -> HTML:
    """Say the differences that hold, with their intervals, then all in a table."""
    from IPython.display import HTML

    table = comparison.differences(features)
    items = "".join(
        f"<li>{escape(sentence)}</li>" for sentence in difference_sentences(comparison, table)
    )
    rows = ""
    for row in table.to_dict("records"):
        feature = FEATURES[row["feature"]]
        change, low, high = (float(row[name]) for name in ("change", "low", "high"))
        known = [abs(value) for value in (change, low, high) if value == value]
        decimals = decimals_for((0.0, max(known))) if known else 0
        texts = [signed(v, decimals, plus=True) if v == v else "–" for v in (change, low, high)]
        interval = "–" if low != low else f"{texts[1]} to {texts[2]}"
        judged = "significant" if row["conclusive"] else "inconclusive"
        rows += (
            f"<tr><td>{escape(feature.label)}</td>"
            f'<td class="number">{escape(with_unit(texts[0], feature.difference_unit))}</td>'
            f'<td class="number">{interval}</td>'
            f'<td class="number">{row["seeds"]}</td><td>{judged}</td>'
            f'<td class="text">{escape(str(row["note"]))}</td></tr>'
        )
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Feature", "B − A", "95% interval", "Seeds", "After correction", "Note")
    )
    return HTML(
        f'<ul class="findings">{items}</ul>'
        f'<p class="method">{len(table)} questions were asked. The chance that even one of the '
        f"differences named here is a false alarm is at most {ALPHA:.0%} (Holm's correction). Each "
        "seed counts once, by its mean over all pairs.</p>"
        '<div class="scroll" role="region" aria-label="Differences" tabindex="0">'
        f'<table class="clips"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def listening(
    comparison: Comparison, features: Sequence[str] | None = None, *, out: str | Path
) -> HTML:
    """Show the pairs beside each other, each clip with its picture and its player.

    The sounds and pictures are written into `listening/` of the folder `out`.
    """
    from IPython.display import HTML

    a, b = MelPictures(comparison.a), MelPictures(comparison.b)
    share_scale(a, b)
    names, previews = shown_features(features), FilePreviews(Path(out))
    runs = ((comparison.a, a), (comparison.b, b))
    records = [{record["key"]: record for record in run.records} for run, _ in runs]
    heads = "".join(
        f'<th scope="col">{side} <b>{escape(name)}</b></th>'
        for side, name in zip("AB", comparison.names(), strict=True)
    )
    rows = []
    for pair in comparison.pairs[:PAIRS_SHOWN]:
        cells = ""
        for (run, pictures), known, key in zip(runs, records, (pair.a, pair.b), strict=True):
            made = {key: previews.of(run, key, pictures)} if key in pictures.by_key else {}
            facet = Facet(0, 0, (known[key],), pair.label)
            cells += f"<td>{ClipCells(made, tuple(names)).show(facet)}</td>"
        rows.append(f'<tr><th scope="row">{escape(pair.label)}</th>{cells}</tr>')
    more = len(comparison.pairs) - PAIRS_SHOWN
    return HTML(
        styled(
            f"{legend(a)}{LOUDNESS_SWITCH}"
            '<div class="listening-scroll" role="region" aria-label="Pairs of clips" tabindex="0">'
            '<table class="listening-grid" style="--columns: 2">'
            f"<tr><td></td>{heads}</tr>{''.join(rows)}</table></div>"
            + (f"<p>{more} more pairs are not shown.</p>" if more > 0 else "")
        )
    )
