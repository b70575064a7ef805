"""`Parts`: the contents of a checkpoint, and functions that read its files."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.config import Source
from musicgen_lab.models.library_noise import quiet


@dataclass(frozen=True)
class Parts:
    """The contents of a checkpoint.

    Attributes
    ----------
    architecture : dict
        The fields of `ModelConfig` that describe the LM.
    tensors : dict of str to Tensor
        The LM, named as in `lm.safetensors`.
    codec_config : dict
        Of a transformers `EncodecModel`.
    codec_tensors : dict of str to Tensor
        Its weights.
    save_text_encoder : callable
        Writes the T5 encoder and its tokenizer into a folder.
    files : list of Path
        The weight files that were read.
    sources : dict of str to Source
        "text_encoder" and "codec", if the checkpoint only names them.
    """

    architecture: dict[str, Any]
    tensors: dict[str, Tensor]
    codec_config: dict[str, Any]
    codec_tensors: dict[str, Tensor]
    save_text_encoder: Callable[[Path], None]
    files: list[Path]
    sources: dict[str, Source] = field(default_factory=dict)


def read_pickle(path: Path) -> dict[str, Any]:
    """Read tensors and plain values from a torch file; reject anything that would execute code.

    Raises
    ------
    ModelUnavailable
    """
    try:
        with quiet():
            package = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError:
        raise ModelUnavailable(f"{path} is missing; fetch the checkpoint again") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(
            f"{path} is damaged, or holds more than tensors and plain values ({reason[:120]}); "
            "nothing of it was executed; fetch it again"
        ) from None
    if not isinstance(package, dict):
        raise ModelUnavailable(f"{path} holds a {type(package).__name__}, not a checkpoint")
    return package


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"  # only torch's newer format can be memory-mapped


def describe_source(
    name: str, revision: str | None, files: Sequence[Path], parts: Mapping[str, Source] = {}
) -> Source:
    """Return the record of the weight files that a model was made from."""
    checksums = {path.name: _sha256(path) for path in files}
    return Source(name=name, revision=revision, sha256=checksums, parts=dict(parts))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
