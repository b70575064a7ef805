"""Training states on disk: whole or not at all, so that a run can be stopped at any moment."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from musicgen_lab.runs.atomic_io import write_atomically


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state in place of the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """Read a training state; None where there is none yet."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
