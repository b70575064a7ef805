"""Write a T5 encoder and its tokenizer into a model folder, every tensor by its name and shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from musicgen_lab.conversion.parts import check_all_read
from musicgen_lab.engine.t5 import EMBEDDING, T5Config, expected_shapes
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import TensorReader
from musicgen_lab.models.config import CONFIG_FILE, WEIGHTS_FILE
from musicgen_lab.models.hub import TOKENIZERS
from musicgen_lab.models.tokenizer import (
    MISSING_TOKENIZER,
    TOKENIZER_BYTES_MAX,
    TOKENIZER_FILE,
    check_vocabulary,
    read_tokenizer,
)

TIED_EMBEDDING = "encoder.embed_tokens.weight"  # the same table under another name
NOT_USED = ("decoder.", "lm_head.")  # of a whole T5


def save_text_encoder(
    source: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path
) -> None:
    """Write a text encoder as transformers would.

    Parameters
    ----------
    source : Path
        Where its tokenizer lies.
    config : mapping
        Of a transformers `T5Config`.
    state : mapping of str to Tensor
        The weights, named as in transformers; those of T5's decoder are left out.
    folder : Path
        To be made.

    Raises
    ------
    ModelUnavailable
        When the configuration cannot be served, a tensor is missing, of another shape or name, or
        the tokenizer cannot tell words apart.
    """
    try:
        t5 = T5Config.model_validate(config)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise ModelUnavailable(
            f"the text encoder of {source} cannot be served: {where}: {detail['msg']}"
        ) from None
    tensors = _select(source, t5, state)
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    described = {"model_type": "t5", "architectures": ["T5EncoderModel"], **config}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    _save_tokenizer(source, t5, folder)


def _select(source: Path, config: T5Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors in float32, exactly those expected and in their shapes."""
    reader = TensorReader(state)
    tensors: dict[str, Tensor] = {}
    for name, shape in expected_shapes(config):
        there = TIED_EMBEDDING if name == EMBEDDING and name not in reader else name
        stored = tuple(reader[there].shape) if there in reader else None
        if stored != shape:
            raise ModelUnavailable(
                f"the text encoder of {source} does not fit its configuration: {name} should have "
                f"shape {shape}, found {stored}; fetch it again"
            )
        tensors[name] = reader[there].to(torch.float32).contiguous()
    check_all_read(source, reader, ignore=(*NOT_USED, TIED_EMBEDDING))
    return tensors


def _save_tokenizer(source: Path, config: T5Config, folder: Path) -> None:
    files = [source / name for name in TOKENIZERS if (source / name).is_file()]
    if not files:  # transformers would make up an empty one
        raise ModelUnavailable(
            f"{source} has no tokenizer: neither {' nor '.join(TOKENIZERS)}; {MISSING_TOKENIZER}"
        )
    from transformers import AutoTokenizer

    try:
        if max(file.stat().st_size for file in files) > TOKENIZER_BYTES_MAX:
            raise ValueError(f"it is larger than {TOKENIZER_BYTES_MAX:,} bytes")
        AutoTokenizer.from_pretrained(
            source, local_files_only=True, trust_remote_code=False
        ).save_pretrained(folder)
    except Exception as error:  # transformers raises nearly every type there is
        reason = " ".join(str(error).split())[:160]
        raise ModelUnavailable(f"the tokenizer in {source} cannot be read ({reason})") from None
    try:
        tokenizer = read_tokenizer(folder / TOKENIZER_FILE)
        check_vocabulary(tokenizer, folder / TOKENIZER_FILE, config.vocab_size)
    except ModelUnavailable as error:
        raise ModelUnavailable(str(error).replace(str(folder), str(source))) from None
