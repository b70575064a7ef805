"""`Parts`: the contents of a checkpoint, and functions that read its files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.models.checkpoint import Checkpoint, TensorReader
from musicgen_lab.models.checksums import file_sha256
from musicgen_lab.models.config import CONFIG_BYTES_MAX, Source
from musicgen_lab.models.library_noise import quiet

PICKLE_BYTES_MAX = 64_000_000  # names, shapes and a configuration take some hundred thousand
TIED_MAX = 4  # tensors that are stored once and named several times
COUNT_MAX = 512
UNFIT = (
    ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What reading a checkpoint raises that does not fit its own configuration."""


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


def check_all_read(source: Path, state: TensorReader, *, ignore: tuple[str, ...] = ()) -> None:
    """Refuse tensors that were not read, other than those whose names begin with `ignore`.

    Raises
    ------
    ModelUnavailable
    """
    unread = state.unread(ignore=ignore)
    if unread:
        raise ModelUnavailable(
            f"{source} has tensors that do not belong to its model, such as {unread[0][:120]!r}: "
            f"{_advice(unread)}"
        )


def _advice(names: Iterable[str]) -> str:
    """Say what tensors of unexpected names are likely to be."""
    if any("lora_" in name or name.startswith("base_model.") for name in names):
        return (
            "it is a model with LoRA layers: merge them (PEFT's merge_and_unload, then "
            "save_pretrained) and give the folder that is saved"
        )
    return "it is damaged, or of another architecture than its configuration says"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors alone, safetensors or a pickle of torch's, without running any of it.

    Raises
    ------
    ModelUnavailable
        When it is damaged, holds anything else, or claims more than it holds.
    """
    if path.suffix == ".safetensors":
        return dict(Checkpoint(path))
    return check_tensors(path, read_pickle(path))


def read_pickle(path: Path) -> dict[str, Any]:
    """Read tensors and plain values from a torch file; reject anything that would execute code.

    Raises
    ------
    ModelUnavailable
    """
    try:
        compressed = zipfile.is_zipfile(path)
        if compressed:
            _check_members(path)
        with quiet():
            package = torch.load(path, map_location="cpu", weights_only=True, mmap=compressed)
    except FileNotFoundError:
        raise ModelUnavailable(f"{path} is missing; fetch the checkpoint again") from None
    except Exception as error:  # the unpickler of a damaged file raises nearly every type there is
        reason = _printable(str(error).strip().partition("\n")[0])
        if "omegaconf" in str(error):
            raise ModelUnavailable(
                f"{path} is a checkpoint of audiocraft's trainer, which holds Python objects; "
                "nothing of it was executed. Export it with audiocraft.utils.export (export_lm to "
                "state_dict.bin, export_encodec or export_pretrained_compression_model to "
                "compression_state_dict.bin) and give the folder of the two"
            ) from None
        raise ModelUnavailable(
            f"{path} is damaged, or holds more than tensors and plain values ({reason[:120]}); "
            "nothing of it was executed; fetch it again"
        ) from None
    if not isinstance(package, dict):
        raise ModelUnavailable(f"{path} holds a {type(package).__name__}, not a checkpoint")
    return package


def _check_members(path: Path) -> None:
    """Refuse an archive whose parts are larger than itself: compressed, or the same bytes twice."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = path.stat().st_size
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"its parts claim more than the {size:,} bytes of the file")
    pickled = max((m.file_size for m in members if m.filename.endswith("data.pkl")), default=0)
    if pickled > PICKLE_BYTES_MAX:
        raise ValueError(f"its index has {pickled:,} bytes, more than {PICKLE_BYTES_MAX:,}")


def check_tensors(path: Path, state: Any) -> dict[str, Tensor]:
    """Return a state whose values are tensors with numbers of their own in the file.

    A view that repeats its numbers would take any amount of memory when it is copied.

    Raises
    ------
    ModelUnavailable
    """
    if not isinstance(state, dict) or not state:
        raise ModelUnavailable(f"{path} holds no tensors by name")
    total = 0
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise ModelUnavailable(f"{path}: {str(name)[:80]!r} is a {kind}, not a tensor")
        size = tensor.numel() * tensor.element_size()
        if (
            tensor.layout != torch.strided
            or tensor.device.type != "cpu"
            or size > tensor.untyped_storage().nbytes()
        ):
            raise ModelUnavailable(
                f"{path}: {name[:80]!r} claims {tuple(tensor.shape)} numbers that it does not hold"
            )
        total += size
    held = path.stat().st_size
    if total > TIED_MAX * held:
        raise ModelUnavailable(f"{path} claims {total:,} bytes of tensors, but has {held:,}")
    return state


def read_json(path: Path, bytes_max: int = CONFIG_BYTES_MAX) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    Raises
    ------
    ModelUnavailable
    """
    try:
        if path.stat().st_size > bytes_max:
            raise ValueError(f"it is larger than {bytes_max:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{path} cannot be read ({_printable(str(error))})") from None


def check_count(name: str, count: Any) -> int:
    """Return a number of codebooks, channels or layers that a configuration names.

    Raises
    ------
    ValueError
        When it is no number from 1 to 512: something would be repeated that often.
    """
    if type(count) is int and 1 <= count <= COUNT_MAX:
        return count
    raise ValueError(f"{name} must be from 1 to {COUNT_MAX}, got {str(count)[:20]}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def describe_source(
    name: str, revision: str | None, files: Sequence[Path], parts: Mapping[str, Source] = {}
) -> Source:
    """Return the record of the weight files that a model was made from."""
    checksums = {path.name: file_sha256(path) for path in files}
    return Source(name=name, revision=revision, sha256=checksums, parts=dict(parts))
