"""`Checkpoint`: the tensors of a safetensors file, and `open_checkpoint`, those of an LM, checked.

A safetensors file consists of a header and raw numbers, so opening it executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checksums import HEADER_BYTES_MAX
from musicgen_lab.models.config import LM_FILE, ModelConfig, expected_shapes, load_config

READERS = 8  # threads that read one file
PIECE_BYTES = 32 * 2**20  # that each reads at once
STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a safetensors file on the CPU, memory-mapped, or in memory after `load`.

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
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > HEADER_BYTES_MAX:
                    raise ValueError(f"a header of {length:,} bytes is no header")
                self._file = safe_open(path, framework="pt", device="cpu")
                header: dict[str, Any] = json.loads(file.read(length))
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise ModelUnavailable(
                f"{path} cannot be read ({error}); prepare the model again"
            ) from None
        self._path = path
        self._memory: Tensor | None = None
        header.pop("__metadata__", None)
        self._start = 8 + length
        self._spans: dict[str, tuple[int, int]] = dict(  # first and last byte, in file order
            sorted(((n, tuple(t["data_offsets"])) for n, t in header.items()), key=lambda t: t[1])
        )

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._spans:
            raise KeyError(name)
        tensor: Tensor
        if self._memory is None:
            tensor = self._file.get_tensor(name)
        else:
            first, last = self._spans[name]
            stored = self.stored_dtype(name) or torch.uint8
            tensor = self._memory[first:last].view(stored).view(self.shape(name))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def load(self) -> None:
        """Read the whole file into this process's memory, so that a snapshot includes it."""
        memory = torch.empty(max(last for _, last in self._spans.values()), dtype=torch.uint8)
        starts = range(0, len(memory), PIECE_BYTES)
        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(lambda a: self._read(a, memory[a : a + PIECE_BYTES]), starts))
        self._memory = memory

    def read_into(self, name: str, offset: int, piece: Tensor) -> None:
        """Copy bytes of a tensor, from an offset on, into a piece of memory.

        Parameters
        ----------
        name : str
        offset : int
            In bytes.
        piece : Tensor
            (n,) of uint8 on the CPU, to be filled with n bytes.
        """
        first = self._spans[name][0] + offset
        if self._memory is None:
            self._read(first, piece)
        else:
            np.copyto(piece.numpy(), self._memory[first : first + len(piece)].numpy())

    def _read(self, first: int, piece: Tensor) -> None:
        """Fill a piece of memory with the file's data from an offset on."""
        view = piece.numpy().data
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._start + first)
            while view:
                count = file.readinto(view)
                if not count:
                    raise ModelUnavailable(f"{self._path} is truncated; prepare the model again")
                view = view[count:]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape from the header."""
        return tuple(self._file.get_slice(name).get_shape())

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Return a tensor's precision from the header; None if it is not floating point."""
        return STORED_DTYPES.get(self._file.get_slice(name).get_dtype())


class TensorReader(Mapping[str, Tensor]):
    """Tensors by name; it remembers which were read, so that none is ignored unseen.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._unread = set(tensors)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self._unread.discard(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def unread(self, *, ignore: tuple[str, ...] = ()) -> list[str]:
        """Return the names that were not read, other than those that begin with `ignore`."""
        return sorted(name for name in self._unread if not name.startswith(ignore))


def open_checkpoint(folder: Path) -> tuple[ModelConfig, Checkpoint]:
    """Open the configuration and the LM of a model folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    config : ModelConfig
    checkpoint : Checkpoint
        Its names, shapes and precisions match the configuration.

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
