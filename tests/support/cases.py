"""Fixtures of tiny real checkpoints, made once: real architectures, random weights."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from musicgen_lab.clip import CODEC
from musicgen_lab.conversion.convert import convert
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.models.checksums import write_checksums
from musicgen_lab.models.config import load_config
from musicgen_lab.reference.engine import ReferenceEngine
from musicgen_lab.request import GenerationRequest
from musicgen_lab.source import Source, SourceCodes
from tests.support.checkpoints import build_checkpoint


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tiny models gain nothing from more, and a busy machine stalls them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mono": {"seed": 0, "dim": 64, "layers": 2, "heads": 4},
    "deep": {
        "seed": 1,
        "dim": 48,
        "layers": 5,
        "heads": 3,
        "card": 100,
        "bias_proj": True,
        "codec_lstm": 0,
    },
    "wide": {"seed": 2, "dim": 160, "layers": 2, "heads": 5, "card": 300, "n_q": 3},
    "stereo": {"seed": 5, "dim": 64, "layers": 2, "heads": 2, "stereo": True},
}
PROMPTS = ("calm acoustic guitar melody", "an upbeat electronic dance track with heavy bass", "x")


@dataclass
class Case:
    """One architecture: its checkpoint, its model folder, and both engines."""

    checkpoint: Path
    folder: Path
    engine: Engine

    @cached_property
    def reference(self) -> ReferenceEngine:
        reference = ReferenceEngine(self.checkpoint, "cpu")
        reference._window_s = self.engine.config.window_s
        return reference


WINDOW_S = 1.2


def with_short_windows(case: Case, folder: Path) -> Case:
    """Return the same model with windows of 1.2 s, so that long clips are short ones."""
    shutil.copytree(case.folder, folder)
    load_config(folder).model_copy(update={"window_s": WINDOW_S}).save(folder)
    write_checksums(folder)
    engine = Engine.open(folder, EngineOptions("cpu", "float32", 8))
    return Case(case.checkpoint, folder, engine)


@pytest.fixture(scope="module")
def make_short(make_case, tmp_path_factory):
    """Return a tiny model with windows of 1.2 s, by the name of its architecture."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(f"{name} in short windows") / "model"
            made[name] = with_short_windows(make_case(name), folder)
        return made[name]

    return make


def codes_source(engine: Engine, codes: torch.Tensor) -> Source:
    """Return the source of codes (K, frames) of an engine's codec."""
    codec = engine.provenance.details[CODEC]
    kept = codes.numpy().astype(np.uint16)
    return Source.of_bytes(SourceCodes(kept, codec, engine.config.frame_rate).to_bytes())


def greedy(prompt: str = PROMPTS[0], **fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "temperature": 0.0, "seed": 0, **fields})


def sampled(prompt: str = PROMPTS[0], **fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "duration": 1.0, "seed": 0, **fields})


def tokens_of(engine: Engine, request: GenerationRequest) -> torch.Tensor:
    """Make one clip and return its codes (K, frames)."""
    (clip,) = engine.generate([request])
    return torch.from_numpy(clip.codes.astype(np.int64))


_made: dict[str, Case] = {}  # shared by the packages whose conftest imports the fixtures


@pytest.fixture(scope="session")
def make_case(tmp_path_factory):
    def make(name: str) -> Case:
        if name not in _made:
            root = tmp_path_factory.mktemp(name)
            checkpoint = build_checkpoint(root / "checkpoint", **ARCHITECTURES[name])
            folder = convert(checkpoint, root / "model")
            engine = Engine.open(folder, EngineOptions("cpu", "float32", 25))
            _made[name] = Case(checkpoint, folder, engine)
        return _made[name]

    return make


@pytest.fixture(scope="session", params=list(ARCHITECTURES))
def case(request, make_case) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="session")
def mono(make_case) -> Case:
    return make_case("mono")
