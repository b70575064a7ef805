"""`open_checkpoint`: the LM's weights of a model folder, memory-mapped and checked by their header.

safetensors holds a header and raw numbers, so opening a file runs nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musicgen_lab.engine.config import LM_FILE, ModelConfig, expected_shapes, load_config
from musicgen_lab.errors import ModelUnavailable

STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ModelUnavailable
        When the file is missing, truncated or damaged.
    """

    _file: Any  # safetensors has no types

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise ModelUnavailable(
                f"{path} cannot be read ({error}); prepare the model again"
            ) from None
        self._names: list[str] = list(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape from the header."""
        return tuple(self._file.get_slice(name).get_shape())

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Return a tensor's precision from the header, None where it is not a floating one."""
        return STORED_DTYPES.get(self._file.get_slice(name).get_dtype())


def open_checkpoint(folder: Path) -> tuple[ModelConfig, Checkpoint]:
    """Open the configuration and the LM of a model folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    config : ModelConfig
    checkpoint : Checkpoint
        Its names, shapes and precisions are those that the configuration asks for.

    Raises
    ------
    ModelUnavailable
        When a file is missing, damaged, or does not fit the configuration.
    """
    config = load_config(folder)
    checkpoint = Checkpoint(folder / LM_FILE)
    expected = expected_shapes(config)
    missing, foreign = expected.keys() - checkpoint.keys(), checkpoint.keys() - expected.keys()
    if missing or foreign:
        name = min(missing or foreign)
        what = "is missing" if missing else "does not belong there"
        raise ModelUnavailable(
            f"{folder / LM_FILE} does not fit its config.json: {name} {what}; "
            "prepare the model again"
        )
    for name, shape in expected.items():
        if checkpoint.shape(name) != shape or checkpoint.stored_dtype(name) is None:
            raise ModelUnavailable(
                f"{folder / LM_FILE} does not fit its config.json: {name} has shape "
                f"{checkpoint.shape(name)}, not {shape}, or is not of floating type; "
                "prepare the model again"
            )
    return config, checkpoint
