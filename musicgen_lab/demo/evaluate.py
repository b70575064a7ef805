"""Measure a demo model: `python -m musicgen_lab.demo.evaluate`, half an hour on two cores.

Without a folder, the embedded model is measured. The figures are written beside its weights, into
`figures.json` and the model card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from musicgen_lab.demo.classifiers import train_classifiers
from musicgen_lab.demo.measures import (
    DURATION_S,
    Estimate,
    draw_questions,
    measure_adherence,
    measure_diversity,
    measure_each_attribute,
    measure_long_clips,
    measure_losses,
    measure_speed,
    measure_tempo_and_mode,
)
from musicgen_lab.demo.model_card import write_model_card
from musicgen_lab.demo.precision import compare_precisions
from musicgen_lab.engine.engine import Engine
from musicgen_lab.models.locate import EMBEDDED_FOLDER
from musicgen_lab.reference.models import open_models

CLASSIFIER_CLIPS = 6000  # synthesised for the attribute classifiers
SETTINGS = {  # name: temperature, cfg_coef
    "cfg_coef 3": (1.0, 3.0),
    "cfg_coef 1": (1.0, 1.0),
    "temperature 1.5": (1.5, 3.0),
}


def evaluate(model: Path, *, questions: int) -> dict[str, Any]:
    """Measure everything that the model card reports.

    Parameters
    ----------
    model : Path
        A model folder.
    questions : int
        Prompts for each measure of adherence.

    Returns
    -------
    dict
        Plain values, for JSON; estimates as [mean, standard error].
    """
    lm, codec = open_models(model, torch.device("cpu"))
    classifiers = train_classifiers(codec, clips=CLASSIFIER_CLIPS, duration_s=DURATION_S)
    engine = Engine.open(model)
    seen = draw_questions(questions, 100, classifiers.counted)
    unseen = draw_questions(questions, 200, classifiers.counted, held_out=True)
    adherence = {
        name: measure_adherence(engine, classifiers, seen, temperature=t, cfg_coef=c)
        for name, (t, c) in SETTINGS.items()
    }
    held_out = measure_adherence(engine, classifiers, unseen, temperature=1.0, cfg_coef=3.0)
    base = adherence["cfg_coef 3"]
    report = {
        "loss": measure_losses(lm, codec),
        "classifier_accuracy": classifiers.accuracy,
        "heard_when_named": measure_each_attribute(engine, classifiers),
        "adherence": {name: Estimate.of(values) for name, values in adherence.items()},
        "adherence_held_out": Estimate.of(held_out),
        "rise_cfg_1_to_3": Estimate.of(base - adherence["cfg_coef 1"]),
        "fall_temperature_1_to_1.5": Estimate.of(base - adherence["temperature 1.5"]),
        **measure_diversity(engine),
        **measure_tempo_and_mode(engine, classifiers),
        **measure_long_clips(engine),
        "bfloat16": compare_precisions(model, codec),
        "seconds_for_25_clips_of_4_s": measure_speed(model),
    }
    return {name: _plain(value) for name, value in report.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return [round(value.mean, 4), round(value.standard_error, 4)]
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path), default=EMBEDDED_FOLDER)
@click.option("--questions", default=240, help="Prompts for each measure of adherence.")
def main(model: Path, questions: int) -> None:
    """Evaluate a model folder and write its model card."""
    card = write_model_card(model, evaluate(model, questions=questions))
    click.echo(card.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
