"""`convert`: the atomic conversion of a published checkpoint to a model folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from musicgen_lab.conversion.audiocraft import LM_CHECKPOINT, read_audiocraft
from musicgen_lab.conversion.parts import Parts, describe_source
from musicgen_lab.conversion.transformers import read_transformers
from musicgen_lab.engine.codec import Codec, CodecFiles
from musicgen_lab.engine.text import TextEncoder, TextEncoderFiles
from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import open_checkpoint
from musicgen_lab.models.checksums import files_written, write_checksums
from musicgen_lab.models.config import (
    CODEC_FOLDER,
    CONFIG_FILE,
    LM_FILE,
    TEXT_ENCODER_FOLDER,
    WEIGHTS_FILE,
    Dtype,
    ModelConfig,
    expected_shapes,
    is_model_folder,
)
from musicgen_lab.models.library_noise import quiet
from musicgen_lab.models.locate import MODELS_HOME

UNFINISHED = ".unfinished-"
"""Between the name of a model folder and the random end of the folder that it is written in."""

TOP_LEVEL = (CONFIG_FILE, LM_FILE, CODEC_FOLDER, TEXT_ENCODER_FOLDER)

_NON_COMMERCIAL = "CC-BY-NC-4.0"


def convert(
    source: Path,
    out: Path,
    *,
    dtype: Dtype | Literal["auto"] = "auto",
    name: str | None = None,
    revision: str | None = None,
    license: str | None = None,
) -> Path:
    """Convert a checkpoint in audiocraft's or transformers' format into a model folder.

    Nothing in the checkpoint is executed. The folder is written under a temporary name and renamed
    when it is complete and has been opened once; an existing one is replaced.

    Parameters
    ----------
    source : Path
        A folder with `state_dict.bin` and `compression_state_dict.bin`, or one with a transformers
        `config.json` of type "musicgen" and its weights.
    out : Path
        The model folder to write.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        Precision of the language model; "auto" keeps the checkpoint's own.
    name, revision : str, optional
        What to record as the source; the folder's name by default.
    license : str, optional
        Licence of the weights; known for the released models.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ModelUnavailable
        When files are missing, damaged or do not match, when the checkpoint is of an unsupported
        kind (melody, style), when a part that it only names cannot be fetched, or when the model
        cannot be written.
    """
    name = name or source.resolve().name
    if license is None:
        license = _NON_COMMERCIAL if name.startswith("facebook/musicgen") else "unknown"
    parts = _read(source)
    stored = _stored_dtype(parts.tensors) if dtype == "auto" else dtype
    config = _check_config(
        source,
        {
            **parts.architecture,
            "dtype": stored,
            "source": describe_source(name, revision, parts.files, parts.sources),
            "license": license,
        },
    )
    _check_tensors(source, config, parts.tensors)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}{UNFINISHED}"
        ) as temporary:
            folder = Path(temporary) / "model"
            _write(folder, config, parts)
            try:
                _open_once(folder)
            except ModelUnavailable as error:
                reason = str(error).replace(f"{folder}/", "")
                reason = reason.removesuffix("; prepare the model again")
                raise ModelUnavailable(f"{source} cannot be converted: {reason}") from None
            write_checksums(folder)
            check_replaceable(out)
            if out.exists():
                out.replace(Path(temporary) / "previous")
            folder.replace(out)
    except (OSError, SafetensorError) as error:  # the latter of a full disk
        raise ModelUnavailable(
            f"{out} cannot be written ({getattr(error, 'strerror', None) or error}); make room "
            f"there, or name another folder ({MODELS_HOME}, --out)"
        ) from error
    return out


def check_replaceable(out: Path) -> None:
    """Refuse to write a model where something is that no conversion wrote.

    Raises
    ------
    ModelUnavailable
        Naming what is there.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ModelUnavailable(f"{out} is a file, not a model folder; name another one")
    own = files_written(out)
    if own is None:
        strangers = [path.name for path in out.iterdir() if path.name not in TOP_LEVEL]
    else:
        paths = (path for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
        strangers = [
            name for path in paths if (name := path.relative_to(out).as_posix()) not in own
        ]
    if strangers:
        raise ModelUnavailable(
            f"{out} is there already and holds more than a model folder "
            f"({', '.join(sorted(strangers)[:3])}), which would be lost; name another one"
        )


def _read(source: Path) -> Parts:
    """Read a checkpoint in whichever format it is."""
    if is_model_folder(source):
        raise ModelUnavailable(f"{source} is prepared already; use it, or a copy of the folder")
    if (source / LM_CHECKPOINT).is_file():
        return read_audiocraft(source)
    if (source / "config.json").is_file():
        return read_transformers(source)
    raise ModelUnavailable(
        f"{source} holds no checkpoint: neither {LM_CHECKPOINT} (audiocraft) nor config.json "
        "(transformers) is there"
    )


def _stored_dtype(tensors: Mapping[str, Tensor]) -> str:
    kinds = {tensor.dtype for tensor in tensors.values()}
    dtype = kinds.pop() if len(kinds) == 1 else torch.float32
    return str(dtype).removeprefix("torch.")


def _check_config(source: Path, fields: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig(**fields)
    except ValueError as error:  # pydantic's ValidationError is one
        reason = " ".join(str(error).split())[:200]
        raise ModelUnavailable(
            f"{source} describes a model that cannot be served: {reason}"
        ) from None


def _check_tensors(source: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    for tensor_name, shape in expected_shapes(config).items():
        stored = tuple(tensors[tensor_name].shape) if tensor_name in tensors else None
        if stored != shape:
            raise ModelUnavailable(
                f"{source} does not fit its own configuration: {tensor_name} should have shape "
                f"{shape}, found {stored}"
            )


def _write(folder: Path, config: ModelConfig, parts: Parts) -> None:
    codec_folder = folder / CODEC_FOLDER
    codec_folder.mkdir(parents=True)
    dtype = getattr(torch, config.dtype)
    lm = {name: tensor.to(dtype).contiguous() for name, tensor in parts.tensors.items()}
    save_file(lm, folder / LM_FILE)
    codec = {name: tensor.contiguous() for name, tensor in parts.codec_tensors.items()}
    save_file(codec, codec_folder / WEIGHTS_FILE, metadata={"format": "pt"})
    described = {"model_type": "encodec", "architectures": ["EncodecModel"], **parts.codec_config}
    (codec_folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    with quiet():
        parts.save_text_encoder(folder / TEXT_ENCODER_FOLDER)
    config.save(folder)


def _open_once(folder: Path) -> None:
    """Open every part, so that only a working folder is kept."""
    cpu = torch.device("cpu")
    config, checkpoint = open_checkpoint(folder)
    TextEncoder(TextEncoderFiles(folder / TEXT_ENCODER_FOLDER), checkpoint, cpu)
    codec = _open_codec(folder, config, cpu)
    if (codec.sample_rate, codec.frame_rate) != (config.sample_rate, config.frame_rate):
        raise ModelUnavailable(
            f"the codec makes {codec.sample_rate} Hz at {codec.frame_rate:g} frames a second, but "
            f"the language model was made for {config.sample_rate} Hz at {config.frame_rate:g}"
        )


def _open_codec(folder: Path, config: ModelConfig, device: torch.device) -> Codec:
    """Open the codec of a model folder."""
    return Codec(
        CodecFiles(folder / CODEC_FOLDER),
        channels=config.channels,
        codebooks=config.codebooks,
        card=config.card,
        device=device,
    )
