"""The sections of a report as HTML: the request, the main findings, and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from musicgen_lab.analysis.drift import DRIFT_FEATURES
from musicgen_lab.analysis.features import NAMED_FEATURES, chosen_features
from musicgen_lab.errors import InvalidRequest
from musicgen_lab.fields import SWEEP_ORDER
from musicgen_lab.figures.curves import plot_curves
from musicgen_lab.figures.drift import long_clips, plot_drift
from musicgen_lab.figures.effects import EffectPanels
from musicgen_lab.figures.heatmap import Heatmaps
from musicgen_lab.formatting import (
    decimals_within,
    format_value,
    mid_sentence,
    signed,
    value_with_unit,
)
from musicgen_lab.report.sentences import find, source_sentence, tests_performed
from musicgen_lab.runs.frame import FIELD_DEFAULTS
from musicgen_lab.runs.run_table import RunTable, request_of
from musicgen_lab.stats.run_features import with_run_features
from musicgen_lab.stats.study_tables import ALPHA, StudyTables, significant
from musicgen_lab.templating import show

if TYPE_CHECKING:
    from IPython.display import HTML

    from musicgen_lab.figures.drawing import Drawing

TITLE_CHARACTERS_MAX = 120
VALUES_SHOWN = 12
FEATURE_FIGURES_MAX = 9
NARROW_PX = 460  # figures up to this width stand side by side
PAGES_PER_FEATURE_MAX = 2


def heading(table: RunTable, title: str = "") -> HTML:
    """Return the heading of a run: what was requested, and how many clips there are.

    Parameters
    ----------
    table : RunTable
    title : str
        The heading; if empty, the prompt, if there is only one.

    Returns
    -------
    IPython.display.HTML
    """
    shown = report_title(table.frame["prompt"], title)
    return show(
        "report/heading.html.j2", title=shown, lead=_lead(table), facts=list(_facts(table, shown))
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
    """Return the main findings: significant effects and interactions, then inconclusive ones.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The features to report; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    InvalidRequest
        When there is no such feature.
    """
    study = StudyTables.of(table, features)
    outcome = find(study)
    method = ""
    if outcome.questions:
        effects = outcome.questions - outcome.about_interactions
        kinds = (
            f": {effects} for effects and {outcome.about_interactions} for interactions of two "
            "parameters"
            if outcome.about_interactions
            else ""
        )
        method = (
            f"{tests_performed(outcome.questions)} on {outcome.features} feature"
            f"{'s' * (outcome.features != 1)}{kinds}. "
            "The probability that any of the effects named here is a false positive is at most "
            f"{ALPHA:.0%} (Holm's correction)."
        )
    method = " ".join(filter(None, [method, source_sentence(table)]))
    return show(
        "report/findings.html.j2",
        significant=outcome.significant,
        inconclusive=outcome.inconclusive,
        method=method,
    )


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


def _facts(table: RunTable, title: str) -> Iterator[dict[str, Any]]:
    """Yield what was requested, swept fields first, and no prompt that is the title."""
    records = table.records
    inert = _inert_everywhere(records)
    of_request = SWEEP_ORDER if records else ()
    for name in sorted(of_request, key=lambda name: name != "prompt" and name not in table.swept):
        values = table.values(name)
        if values == [FIELD_DEFAULTS.get(name)] or (name == "prompt" and title == f"“{values[0]}”"):
            continue
        write = table.labels.value if name == "begin_with" else partial(format_value, shorten=None)
        texts = [write(name, value) for value in values[:VALUES_SHOWN]]
        if name == "prompt" and table.labels.is_numbered:
            numbers = (table.labels.value(name, value).partition(":")[0] for value in values)
            texts = [f"{number}: {text}" for number, text in zip(numbers, texts, strict=False)]
        if len(values) > VALUES_SHOWN:
            texts = [texts[0], "…", write(name, values[-1])]
        note = ""
        if name in inert:
            note = f"(does nothing: {inert[name]})"
        elif len(values) > VALUES_SHOWN:
            note = f"({len(values)} values)"
        lines = texts if name == "prompt" else [", ".join(texts)]
        yield {"name": name, "lines": lines, "note": note}


def _inert_everywhere(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the fields that have no effect on any of the clips, with the reason."""
    common: dict[str, str] | None = None
    for record in records:
        try:
            here = request_of(record).inert_fields()
        except InvalidRequest:
            return {}  # made under other limits; what acted then is not for these rules to say
        common = here if common is None else {k: v for k, v in common.items() if k in here}
    return common or {}


def feature_figures(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Return figures of the features over the swept parameters, significant effects first.

    Under their own heading; nothing where only the seed was swept or no clip was made. A grid has
    heatmaps; a single swept parameter, and a random design, have curves. At most nine are drawn,
    and none of a feature that no clip has, or all have alike; the text says so.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The features to report; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    if not table.parameters or not (table.frame["status"] == "ok").any():
        return _figures([])
    study = StudyTables.of(table, features)
    claims = study.trends if study.is_random_design else study.effects
    first = [claim["feature"] for claim in significant(claims)]
    names = [name for name in chosen_features(features) if NAMED_FEATURES[name].kind == "number"]
    varying, notes = _varying(table, list(dict.fromkeys([*first, *names])))
    figures = list(_feature_figures(table, varying, study))
    if len(figures) > FEATURE_FIGURES_MAX:
        notes.append(
            "There are more features and grids than are shown: results.plot_heatmap and "
            "results.plot_curves draw the others."
        )
    drawn = [(label, draw()) for label, draw in figures[:FEATURE_FIGURES_MAX]]
    return _figures(drawn, notes, heading="Features by parameter")


def _feature_figures(
    table: RunTable, features: Sequence[str], study: StudyTables
) -> Iterator[tuple[str, Callable[[], Drawing]]]:
    """Yield the label of each figure, and what draws it: only the first ones are drawn."""
    for name in features:
        label = NAMED_FEATURES[name].label
        heatmaps = Heatmaps(table, name)
        if len(table.parameters) == 1 or not heatmaps.grids:
            yield f"Curve: {label}", partial(plot_curves, table, [name], study=study)
            continue
        for grid in heatmaps.grids[:PAGES_PER_FEATURE_MAX]:
            yield f"Heatmap: {label}", partial(heatmaps.draw, grid)


def _varying(table: RunTable, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the features that differ between clips, and say in sentences why others are left out.

    Returns
    -------
    varying : list of str
    notes : list of str
    """
    frame = with_run_features(table, names).frame
    made = frame[frame["status"] == "ok"]
    values = {name: made[name].astype("Float64").dropna() for name in names}
    empty = [mid_sentence(NAMED_FEATURES[name].label) for name in names if values[name].empty]
    alike = {
        name: value_with_unit(float(values[name].iloc[0]), NAMED_FEATURES[name].unit)
        for name in names
        if values[name].nunique() == 1
    }
    notes = [f"No clip has a value of {', '.join(empty)}."] if empty else []
    if alike:
        same = (
            f"{mid_sentence(NAMED_FEATURES[name].label)} ({text})" for name, text in alike.items()
        )
        notes.append(f"The same in every clip: {', '.join(same)}.")
    return [name for name in names if not values[name].empty and name not in alike], notes


def drift_figure(table: RunTable) -> HTML:
    """Return a figure of the windows of long clips, under its own heading; nothing without any.

    Parameters
    ----------
    table : RunTable

    Returns
    -------
    IPython.display.HTML
    """
    if not long_clips(table):
        return _figures([])
    frame = with_run_features(table, DRIFT_FEATURES).frame
    texts = []
    for name, feature in DRIFT_FEATURES.items():
        values = frame[name].dropna()
        if len(values):
            mean, sd = values.mean(), values.std() if len(values) > 1 else 0.0
            decimals = decimals_within(mean - sd, mean + sd)
            text = signed(mean, decimals, plus=name != "timbre_drift_db")
            if len(values) > 1:
                text += f" ± {sd:.{decimals}f}"
            texts.append(f"{mid_sentence(feature.label)} {text} {feature.unit}")
    clips = int(frame[list(DRIFT_FEATURES)].notna().any(axis=1).sum())
    over = f" over {clips} clips (mean ± standard deviation)" if clips > 1 else ""
    note = f"From the first window to the last{over}: {', '.join(texts) or 'no value'}."
    return _figures([("Windows over time", plot_drift(table))], [note], heading="Long clips")


def effects_figure(table: RunTable, features: Sequence[str] | None = None) -> HTML:
    """Return figures of the effects of the swept parameters on each feature, under a heading.

    Nothing where there are none: only the seed was swept, no two values have clips to compare, no
    feature has a mean, or the design is random, which has trends.

    Parameters
    ----------
    table : RunTable
    features : sequence of str, optional
        The features to report; see `musicgen_lab.analysis.features.chosen_features`.

    Returns
    -------
    IPython.display.HTML
    """
    if not table.parameters:
        return _figures([])
    study = StudyTables.of(table, features)
    if not study.features or study.is_random_design or study.effects["change"].isna().all():
        return _figures([])
    panels = EffectPanels(table, features)
    drawings = [
        (f"Effects: {NAMED_FEATURES[name].mean_label}", panels.draw([name]))
        for name in panels.features
    ]
    return _figures(drawings, heading="Effects", legend=panels.legend)


def _figures(
    drawings: Sequence[tuple[str, Drawing]],
    notes: Sequence[str] = (),
    *,
    heading: str = "",
    legend: str = "",
) -> HTML:
    """Return figures, each with its name for screen readers, and notes below them.

    Nothing is shown without any; the legend, which is for all of them, stands above them.
    """
    return show(
        "report/figures.html.j2",
        drawings=drawings,
        notes=notes,
        heading=heading,
        legend=legend,
        narrow_px=NARROW_PX,
    )
