"""The model card beside the weights: a description, and measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from musicgen_lab.demo.architecture import CARD, CODEBOOKS, LM_DIM, LM_HEADS, LM_LAYERS, TEXT_DIM
from musicgen_lab.demo.composition import INSTRUMENTS, TEMPI_BPM
from musicgen_lab.demo.pieces import GENRES
from musicgen_lab.demo.train import LICENSE, NAME, RECIPE_VERSION, TRAINING_FILE
from musicgen_lab.demo.train_lm import LMTraining

CARD_FILE = "MODEL_CARD.md"
FIGURES_FILE = "figures.json"

_TEXT = """# {name}

A tiny MusicGen that makes simple synthetic music offline, within seconds. Licence: {license}.
Recipe version {version}: `python -m musicgen_lab.demo.train WORK_FOLDER MODEL_FOLDER`.
Made on: {machine}.

## What it is
- EnCodec, 32 kHz mono, 50 frames a second, {codebooks} codebooks of {card} codes. The encoder is a
  cosine transform of the lowest 6.4 kHz, the codebooks come from k-means, the decoder is
  trained for {codec_steps} steps.
- Language model with the delay pattern and cross-attention: {dim} wide, {layers} layers, {heads}
  heads; {lm_steps} steps of 3,000 frames. In steps {deaf_spans} it hears nothing of what came
  before and has to tell the music from its caption alone, slow music more often: a word that
  otherwise decides a few tokens of a clip, as one for the tempo does, then matters in all of them.
- T5 encoder, {text_dim} wide, with a tokenizer of whole words and letters, trained on captions.
- Stored in 16 bits: {megabytes:.1f} MB.

## What it was trained on
Music that the package synthesises itself, no recordings: {instruments}; solo, chords and arpeggio;
{tempi} BPM; major and minor; bright and dark; loud and quiet; with and without drums and bass.
Genre words stand for bundles of these: {genres}. Captions are written from templates. A tenth of
the combinations of instrument, tempo and mode is left out.

## What was measured
Estimates are [mean, standard error]. Adherence is the share of named attributes that classifiers,
trained on synthesised clips after the codec, hear in the clip; classifiers whose own accuracy is
under 0.9 do not count in it.

```json
{figures}
```

## Limits
Of ten attributes named, one is not heard. A piano is heard as one in one clip of three and taken
for a guitar in most others. It knows the words above and little else: of other words it hears the
letters. A stray stroke of drums may fall into music without them, and a cfg_coef of 5 and more can
make noise of quiet prompts. It makes loops of four bars in C, F and G, tuned to a grid of 5 Hz. It
says nothing about the quality of the released models.

The embedded weights differ from the recipe in one thing: of the two spans in which nothing is
heard, the first drew all tempi equally often, and so did the second until step 9,400; from there to
9,650 it drew the two slowest alone.
"""


def write_model_card(model: Path, figures: dict[str, Any]) -> Path:
    """Write the card and the figures beside the weights.

    Parameters
    ----------
    model : Path
        A model folder, from `train.train`.
    figures : dict
        From `evaluate.evaluate`.

    Returns
    -------
    Path
        The card.
    """
    training = json.loads((model / TRAINING_FILE).read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    text = _TEXT.format(
        name=NAME,
        license=LICENSE,
        version=RECIPE_VERSION,
        machine=training["machine"],
        codebooks=CODEBOOKS,
        card=CARD,
        dim=LM_DIM,
        layers=LM_LAYERS,
        heads=LM_HEADS,
        lm_steps=training["lm_steps"],
        deaf_spans=" and ".join(f"{first} to {last}" for first, last in LMTraining.deaf_spans),
        codec_steps=training["codec_steps"],
        text_dim=TEXT_DIM,
        megabytes=size / 1e6,
        instruments=", ".join(INSTRUMENTS),
        tempi=", ".join(map(str, TEMPI_BPM)),
        genres=", ".join(GENRES),
        figures=json.dumps(figures, indent=2),
    )
    (model / FIGURES_FILE).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (model / CARD_FILE).write_text(text, encoding="utf-8")
    return model / CARD_FILE
