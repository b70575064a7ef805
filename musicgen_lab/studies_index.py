"""The index page of many studies: ranked by what they show, linked to their reports."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from musicgen_lab.report.export import TEMPLATES
from musicgen_lab.runs.atomic_io import write_atomically
from musicgen_lab.studies import INDEX, Outcome

EFFECTS_SHOWN = 3


def write_index(outcomes: Sequence[Outcome], folder: Path, title: str) -> Path:
    """Write `index.html`: the studies with most effects that hold first, failed ones last.

    Parameters
    ----------
    outcomes : sequence of Outcome
    folder : Path
        In which the studies' run folders lie.
    title : str

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    RunFolderUnwritable
        When it cannot be written.
    """
    ranked = sorted(outcomes, key=lambda outcome: (bool(outcome.error), -len(outcome.held)))
    failed = sum(bool(outcome.error) for outcome in outcomes)
    lead = f"{len(outcomes)} studies" + (f", {failed} failed" if failed else "")
    style = (TEMPLATES / "page" / "page.css").read_text(encoding="utf-8")
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f'<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n'
        f'<header><h1>{escape(title)}</h1><p class="lead">{lead}. Those with most effects that '
        "hold come first.</p></header>\n"
        f'<ol class="studies">{"".join(map(_entry, ranked))}</ol>\n</main>\n</body>\n</html>\n'
    )
    write_atomically(folder / INDEX, page.encode("utf-8"))
    return folder / INDEX


def _entry(outcome: Outcome) -> str:
    study = outcome.study
    name = escape(study.title or study.name)
    prompts = list(dict.fromkeys(request.prompt for request in study.sweep.requests))
    asked = escape(f"“{prompts[0]}”" if len(prompts) == 1 else f"{len(prompts)} prompts")
    swept = escape(" × ".join(study.sweep.swept) or "one request")
    if outcome.error:
        return (
            f'<li class="failed"><h2>{name}</h2><p>{asked}; {swept}</p>'
            f"<p><strong>Failed:</strong> {escape(outcome.error)}</p></li>"
        )
    counts = f"{outcome.clips} clips" + (f", {outcome.failed} failed" if outcome.failed else "")
    items = "".join(f"<li>{escape(said)}</li>" for said in outcome.held[:EFFECTS_SHOWN])
    more = len(outcome.held) - EFFECTS_SHOWN
    items += f"<li>and {more} more</li>" if more > 0 else ""
    found = f'<ul class="findings">{items}</ul>' if items else "<p>No effect can be told.</p>"
    return (
        f'<li><h2><a href="{study.name}/report.html">{name}</a></h2>'
        f"<p>{asked}; {swept}; {counts}</p>{found}</li>"
    )
