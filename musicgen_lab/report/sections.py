"""The words of a report: what was asked, and what stands out, as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest
from musicgen_lab.figures.facets import format_value, records_of, values_of
from musicgen_lab.request import SWEEP_ORDER, GenerationRequest
from musicgen_lab.stats.intervals import FEWEST_RESAMPLED
from musicgen_lab.stats.study_tables import chosen_features

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.results import Results

TITLE_CHARACTERS_MAX = 120
PROMPTS_SHOWN = 12


def heading(results: Results, title: str = "") -> HTML:
    """Say what was asked of a run and what came of it.

    Parameters
    ----------
    results : Results
    title : str
        The heading; the prompt where it is empty and there is only one.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{said}</dd></div>" for name, said in _facts(results)
    )
    said = escape(report_title(results.frame["prompt"], title))
    return HTML(
        f"<header><h1>{said}</h1>"
        f'<p class="lead">{escape(_lead(results))}</p></header><dl class="facts">{facts}</dl>'
    )


def report_title(prompts: Iterable[str], title: str = "") -> str:
    """Return a report's heading: the title given, or else the prompt in quotes."""
    distinct = list(dict.fromkeys(prompts))
    if title:
        return title
    if len(distinct) != 1:
        return f"A sweep over {len(distinct)} prompts"
    return f"“{format_value('prompt', distinct[0], shorten=TITLE_CHARACTERS_MAX)}”"


def findings(results: Results, features: Sequence[str] | None = None) -> HTML:
    """Say what stands out: effects and interactions that hold, the surest first, and what is open.

    Parameters
    ----------
    results : Results
    features : sequence of str, optional
        Which to look at; see `musicgen_lab.stats.study_tables.chosen_features`.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    from IPython.display import HTML

    from musicgen_lab.stats.study_tables import ALPHA, what_stands_out

    names = chosen_features(features)
    said = what_stands_out(results, names)
    items = "".join(f"<li>{escape(claim)}</li>" for claim in said.held)
    parts = [f'<ul class="findings">{items}</ul>'] if items else []
    parts += [f"<p>{escape(remains)}</p>" for remains in said.remains_open]
    if said.questions:
        crossed = (
            f", {said.about_interactions} of them whether the effect of one parameter depends on "
            "another"
            if said.about_interactions
            else ""
        )
        parts.append(
            f'<p class="method">{said.questions} questions were asked, of {len(names)} '
            f"features{crossed}. "
            "The chance that even one of the effects named here is a false alarm is at most "
            f"{ALPHA:.0%} (Holm's correction). Intervals are bootstrapped, and under "
            f"{FEWEST_RESAMPLED} seeds Student's.</p>"
        )
    return HTML("".join(parts))


def _lead(results: Results) -> str:
    frame = results.frame
    failed = int((frame["status"] == "failed").sum())
    made = len(frame) - failed
    seconds = float(frame["duration_s"].sum())
    parts = [f"{made} clip{'s' if made != 1 else ''}, {seconds:.4g} s of audio"]
    silent = int(frame["is_silent"].fillna(False).astype(bool).sum())
    parts += [f"{silent} silent"] if silent else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{results.missing} not made yet"] if results.missing else []
    return "; ".join(parts) + "."


def _facts(results: Results) -> Iterable[tuple[str, str]]:
    """Yield what was asked and who made it, as pairs of plain text and HTML."""
    records = records_of(results)
    inert = _inert_everywhere(records)
    for name in SWEEP_ORDER if records else ():
        values = values_of(records, name)
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
        "asked",
        "<br>".join(
            f"{_date(sweep['asked_at'])} <small>with MusicGen Lab "
            f"{escape(str(sweep['lab_version']))}</small>"
            for sweep in results.sweeps
        ),
    )
    yield "time to make", f"{results.frame['elapsed_s'].sum():,.3g} s in all"
    gpu_s, cost_usd = (results.frame[name].sum() for name in ("gpu_s", "cost_usd"))
    if gpu_s:
        kinds = ", ".join(escape(str(gpu)) for gpu in results.frame["gpu"].dropna().unique())
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
