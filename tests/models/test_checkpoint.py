"""Weights are the same bytes whether mapped, read in pieces, or loaded into memory."""

import pytest
import torch
from safetensors.torch import save_file

from musicgen_lab.engine.engine import Engine
from musicgen_lab.engine.model import Model
from musicgen_lab.engine.options import EngineOptions
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models import checkpoint as checkpoint_module
from musicgen_lab.models.checkpoint import Checkpoint
from tests.support.cases import sampled

TENSORS = {
    "b": torch.arange(700, dtype=torch.float16).view(7, 100),
    "a": torch.arange(3, dtype=torch.float32),
    "c": torch.tensor(1.5, dtype=torch.bfloat16),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "PIECE_BYTES", 1000)  # so that a tensor spans several
    save_file(TENSORS, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("loaded", [False, True])
def test_every_tensor_is_read_as_it_was_stored(path, loaded):
    checkpoint = Checkpoint(path)
    if loaded:
        checkpoint.load()
        path.unlink()  # nothing is read after it

    assert checkpoint.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert checkpoint[name].dtype == tensor.dtype
        assert torch.equal(checkpoint[name], tensor)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_piece_of_a_tensor_can_be_copied_out(path, loaded):
    checkpoint, piece = Checkpoint(path), torch.empty(1100, dtype=torch.uint8)
    if loaded:
        checkpoint.load()

    checkpoint.read_into("b", 20, piece)

    assert torch.equal(piece.view(torch.float16), TENSORS["b"].flatten()[10:560])


def test_a_file_that_shrinks_after_it_was_opened_is_named(path):
    checkpoint = Checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelUnavailable, match=r"weights.safetensors is truncated"):
        checkpoint.load()


def test_a_model_in_memory_makes_the_same_clip(mono):
    model = Model(mono.folder)
    model.load()

    engine = Engine.from_model(model, EngineOptions("cpu", "float32", 1))

    (clip,), (expected,) = (e.generate([sampled()]) for e in (engine, mono.engine))
    assert (clip.samples == expected.samples).all()
