"""The words of a report: what was asked, and what stands out, as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.features import FEATURES, NUMBERS, chosen_features
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.effects import plot_effects
from musicgen_lab.figures.facets import clip_grids
from musicgen_lab.figures.heatmap import plot_heatmaps
from musicgen_lab.figures.mel_pictures import MelPictures
from musicgen_lab.figures.spectrogram_grid import draw_grid
from musicgen_lab.formatting import format_value
from musicgen_lab.report.sentences import find
from musicgen_lab.request import SWEEP_ORDER, GenerationRequest
from musicgen_lab.runs.run_table import RunTable
from musicgen_lab.stats.intervals import FEWEST_RESAMPLED
from musicgen_lab.stats.study_tables import ALPHA, StudyTables, conclusive

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.figures.drawing import Drawing

TITLE_CHARACTERS_MAX = 120
PROMPTS_SHOWN = 12
HEATMAPS_MAX = 6
SPECTROGRAM_PAGES_MAX = 2  # a page of 25 is a megabyte, and the listening grid shows them all
PAGES_PER_FEATURE_MAX = 2


def heading(table: RunTable, title: str = "") -> HTML:
    """Say what was asked of a run and what came of it.

    Parameters
    ----------
    table : RunTable
    title : str
        The heading; the prompt where it is empty and there is only one.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{said}</dd></div>" for name, said in _facts(table)
    )
    said = escape(report_title(table.frame["prompt"], title))
    return HTML(
        f"<header><h1>{said}</h1>"
        f'<p class="lead">{escape(_lead(table))}</p></header><dl class="facts">{facts}</dl>'
    )


def report_title(prompts: Iterable[str], title: str = "") -> str:
    """Return a report's heading: the title given, or else the prompt in quotes."""
    distinct = list(dict.fromkeys(prompts))
    if title:
        return title
    if len(distinct) != 1:
        return f"A sweep over {len(distinct)} prompts"
    return f"“{format_value('prompt', distinct[0], shorten=TITLE_CHARACTERS_MAX)}”"


def findings(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Say what stands out: effects and interactions that hold, the surest first, and what is open.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    from IPython.display import HTML

    study = StudyTables.of(table, features)
    said = find(study)
    items = "".join(f"<li>{escape(claim)}</li>" for claim in said.significant)
    parts = [f'<ul class="findings">{items}</ul>'] if items else []
    parts += [f"<p>{escape(remains)}</p>" for remains in said.inconclusive]
    if said.questions:
        crossed = (
            f", {said.about_interactions} of them whether the effect of one parameter depends on "
            "another"
            if said.about_interactions
            else ""
        )
        parts.append(
            f'<p class="method">{said.questions} questions were asked, of '
            f"{len(study.features)} features{crossed}. "
            "The chance that even one of the effects named here is a false alarm is at most "
            f"{ALPHA:.0%} (Holm's correction). Intervals are bootstrapped, and under "
            f"{FEWEST_RESAMPLED} seeds Student's.</p>"
        )
    return HTML("".join(parts))


def _lead(table: RunTable) -> str:
    frame = table.frame
    failed = int((frame["status"] == "failed").sum())
    made = len(frame) - failed
    seconds = float(frame["duration_s"].sum())
    parts = [f"{made} clip{'s' if made != 1 else ''}, {seconds:.4g} s of audio"]
    silent = int(frame["is_silent"].fillna(False).astype(bool).sum())
    parts += [f"{silent} silent"] if silent else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{table.missing} not made yet"] if table.missing else []
    return "; ".join(parts) + "."


def _facts(table: RunTable) -> Iterable[tuple[str, str]]:
    """Yield what was asked and who made it, as pairs of plain text and HTML."""
    records = table.records
    inert = _inert_everywhere(records)
    for name in SWEEP_ORDER if records else ():
        values = table.values(name)
        texts = [format_value(name, value, shorten=None) for value in values[:PROMPTS_SHOWN]]
        if len(values) > PROMPTS_SHOWN:
            texts = [texts[0], "…", format_value(name, values[-1], shorten=None)]
        separator = "<br>" if name == "prompt" else ", "
        said = separator.join(escape(text) for text in texts)
        if name in inert:
            said += f" <small>(does nothing: {escape(inert[name])})</small>"
        elif len(values) > 1 and name != "prompt":
            said += f" <small>({len(values)} values)</small>"
        yield name, said
    makers = [
        f"{record['engine']} on {record['device']} in {record['dtype']}"
        for record in records
        if record["status"] == "ok"
    ]
    yield "made by", "<br>".join(escape(maker) for maker in dict.fromkeys(makers)) or "nobody yet"
    yield (
        "requested at",
        "<br>".join(
            f"{_date(sweep['asked_at'])} <small>with MusicGen Lab "
            f"{escape(str(sweep['lab_version']))}</small>"
            for sweep in table.sweeps
        ),
    )
    yield "generation time", f"{table.frame['elapsed_s'].sum():,.3g} s in all"
    gpu_s, cost_usd = (table.frame[name].sum() for name in ("gpu_s", "cost_usd"))
    if gpu_s:
        kinds = ", ".join(escape(str(gpu)) for gpu in table.frame["gpu"].dropna().unique())
        yield "cost", f"${cost_usd:,.4f} for {gpu_s:,.1f} GPU-seconds on {kinds}"


def _inert_everywhere(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the fields that act on none of the clips, with the reason."""
    common: dict[str, str] | None = None
    for record in records:
        try:
            here = GenerationRequest(**{name: record[name] for name in SWEEP_ORDER}).inert_fields()
        except InvalidRequest:
            return {}  # made under other limits; what acted then is not for these rules to say
        common = here if common is None else {k: v for k, v in common.items() if k in here}
    return common or {}


def _date(iso: str) -> str:
    return escape(f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M %Z}")


def spectrogram_figures(table: RunTable, *, level_range_db: float) -> HTML:
    """Show the spectrogram grids with axes.

    At most two are drawn; the text says where there are more.

    Parameters
    ----------
    table : RunTable
    level_range_db : float > 0
        From the lightest colour down to the darkest, in dB.

    Returns
    -------
    IPython.display.HTML
        The pictures are inside it.
    """
    from IPython.display import HTML

    grids = clip_grids(table)
    pictures = MelPictures(table, level_range_db=level_range_db)
    parts = [
        figure_block(draw_grid(grid, pictures), f"Spectrogram grid {grid.heading}".strip())
        for grid in grids[:SPECTROGRAM_PAGES_MAX]
    ]
    if len(grids) > SPECTROGRAM_PAGES_MAX:
        parts.append(
            f"<p>The first {SPECTROGRAM_PAGES_MAX} of {len(grids)} grids. "
            "<code>results.plot_spectrograms</code> draws the others.</p>"
        )
    return HTML("".join(parts) or "<p>No clip has been made yet.</p>")


def heatmap_figures(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Show where in the grid the features are high and low, those with sure effects first.

    At most six are drawn; the text says where there are more.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    names = [name for name in chosen_features(features) if name in NUMBERS]
    first = [effect["feature"] for effect in conclusive(StudyTables.of(table, features).effects)]
    ordered = list(dict.fromkeys([*first, *names]))
    drawn = [
        (FEATURES[name].label, drawing)
        for name in ordered
        for _, drawing in plot_heatmaps(table, name)[:PAGES_PER_FEATURE_MAX]
    ]
    if not drawn:
        return HTML("<p>The clips of this run are no grid, so there is no heatmap of them.</p>")
    blocks = "".join(
        figure_block(drawing, f"Heatmap: {label}") for label, drawing in drawn[:HEATMAPS_MAX]
    )
    more = (
        "<p>There are more features and grids than are shown; <code>results.plot_heatmap</code> "
        "draws the others.</p>"
        if len(drawn) > HEATMAPS_MAX
        else ""
    )
    return HTML(f'<div class="figures">{blocks}</div>{more}')


def effects_figure(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Show the effects of every swept parameter with their intervals.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    if not table.parameters:
        return HTML("<p>Nothing but the seed was swept.</p>")
    return HTML(figure_block(plot_effects(table, features), "Effects with intervals"))


def figure_block(drawing: Drawing, name: str) -> str:
    """Return a drawing as HTML that scrolls by itself where the window is narrow."""
    return (
        f'<div class="figure" role="region" aria-label="{escape(name, quote=True)}" tabindex="0">'
        f"{drawing.picture()}</div>"
    )
