"""Fixtures of tiny real checkpoints, made once: real architectures, random weights."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from musicgen_lab.conversion.convert import convert
from musicgen_lab.engine.delay import undelay
from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.reference.engine import ReferenceEngine
from musicgen_lab.request import GenerationRequest
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
        return ReferenceEngine(self.checkpoint, "cpu")


def greedy(prompt: str = PROMPTS[0], **fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "temperature": 0.0, "seed": 0, **fields})


def sampled(prompt: str = PROMPTS[0], **fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": prompt, "duration": 1.0, "seed": 0, **fields})


def tokens_of(engine: Engine, request: GenerationRequest) -> torch.Tensor:
    """Make one clip and return its codes (K, frames), which lie in the first slot's table."""
    engine.add_request(request)
    while not engine.step():
        pass
    frames = engine.config.count_frames(request.duration)
    return undelay(engine._state.tables.tokens[0], frames, engine.config.delays)


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
