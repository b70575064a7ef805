"""The identity of a codec: codes mean nothing to a codec of another one. Without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.config import CODEC_FOLDER, WEIGHTS_FILE, ModelConfig

IDENTITY_DIGITS = 16


def identify_codebooks(tables: npt.NDArray[np.float32]) -> str:
    """Return the identity of a codec, the digest of its codebooks.

    Parameters
    ----------
    tables : np.ndarray [shape=(K, card, D), dtype=float32]
        The vectors of one channel's codebooks.
    """
    return hashlib.sha256(tables.tobytes()).hexdigest()[:IDENTITY_DIGITS]


def read_codec_identity(folder: Path, config: ModelConfig) -> str:
    """Return the identity of a model's codec from its files.

    Parameters
    ----------
    folder : Path
        A model folder.
    config : ModelConfig
        Its own.

    Raises
    ------
    ModelUnavailable
        When the codec cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / CODEC_FOLDER / WEIGHTS_FILE
    names = [
        f"quantizer.layers.{k}.codebook.embed" for k in range(config.codebooks // config.channels)
    ]
    try:
        with safe_open(path, framework="np") as file:
            tables = np.stack([file.get_tensor(name).astype(np.float32) for name in names])
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ModelUnavailable(
            f"{path} cannot be read ({error}); prepare the model again"
        ) from None
    return identify_codebooks(tables)
