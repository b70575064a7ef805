"""Where a model's files are: the embedded model, a folder, or a repository on the Hugging Face Hub.

Nothing here imports torch or opens weights, so a wrong name is reported at once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicgen_lab.errors import ModelUnavailable, MusicGenLabWarning
from musicgen_lab.models.config import CONFIG_FILE, ModelConfig, is_model_folder, load_config
from musicgen_lab.models.hub import PART_WEIGHTS, TOKENIZERS, download, find_revision

EMBEDDED = "demo"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
EMBEDDED_REVISION = "4f7a20dcd779"  # in the keys of its clips; another one for other weights
RELEASED = tuple(
    f"facebook/musicgen-{kind}"
    for kind in ("small", "medium", "large", "stereo-small", "stereo-medium", "stereo-large")
)
RELEASED_LICENCE = "CC-BY-NC 4.0 (no commercial use)"
MODELS_HOME = "MUSICGEN_LAB_MODELS"
AUDIOCRAFT_FILES = ("state_dict.bin", "compression_state_dict.bin")
WEIGHTS = tuple(f"{name}{suffix}" for name in PART_WEIGHTS for suffix in ("", ".index.json"))
CONTENT = (
    CONFIG_FILE,
    "*.safetensors",
    "pytorch_model*.bin",
    "*.index.json",
    *AUDIOCRAFT_FILES,
    "*.model",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""The files that are a model: its weights, its configuration and its tokenizer."""
REVISION_DIGITS = 12
_HUB_PART = r"\w(?:[\w.-]{0,94}\w)?"
_HUB_ID = re.compile(rf"(?!.*(?:--|\.\.)){_HUB_PART}/{_HUB_PART}", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """A model and the revision of its weights.

    Attributes
    ----------
    name : str
        "demo", a Hub id such as "facebook/musicgen-small", or the name of a folder.
    revision : str
        The Hub's commit; or the start of the SHA-256 of a folder's weights, configuration and
        tokenizer; or the embedded model's own.
    folder : Path or None
        Where the files are; None for a Hub model.
    """

    name: str
    revision: str
    folder: Path | None

    @property
    def identity(self) -> str:
        """The name with its revision, as in a resolved request."""
        return f"{self.name}@{self.revision}"

    @property
    def prepared(self) -> Path | None:
        """The model folder that the engine can open, or None if it has not been prepared yet."""
        for folder in (self.folder, self.home):
            if folder is not None and is_model_folder(folder):
                return folder
        return None

    @property
    def home(self) -> Path:
        """The prepared model's path in the folder of prepared models, existing or not."""
        return models_home() / self.identity.replace("/", "--")

    def config(self) -> ModelConfig | None:
        """Return the model's configuration, or None if it has not been prepared yet."""
        return load_config(self.prepared) if self.prepared is not None else None

    def fetch(self) -> Path:
        """Return the folder with the model's own files, downloading them on first use.

        Raises
        ------
        ModelUnavailable
            When the files are not on this machine and cannot be fetched.
        """
        if self.folder is not None:
            return self.folder
        _tell_licence(self.name)
        return download(
            self.name, self.revision, is_whole=_is_whole, choose=_choose_checkpoint_files
        )


def models_home() -> Path:
    """Return the folder of prepared models: MUSICGEN_LAB_MODELS, or one in the user's cache."""
    chosen = os.environ.get(MODELS_HOME)
    if chosen:
        return Path(chosen)
    import platformdirs  # not in the web image of the service, where the variable is set

    return platformdirs.user_cache_path("musicgen-lab") / "models"


def prepared_models() -> list[ModelSource]:
    """Return the embedded model and every model prepared on this machine."""
    return [locate(EMBEDDED), *_fetched_models()]


def _fetched_models() -> list[ModelSource]:
    """Return the models in the folder of prepared models, by what they were made of."""
    sources = []
    for folder in sorted(models_home().glob("*@*")) if models_home().is_dir() else []:
        if is_model_folder(folder):
            name, _, revision = folder.name.replace("--", "/").rpartition("@")
            with contextlib.suppress(
                ModelUnavailable
            ):  # a damaged one is reported when it is opened
                made_of = load_config(folder).source
                name, revision = made_of.name, made_of.revision or revision
            sources.append(ModelSource(name, revision, folder))
    return sources


def locate(name: str) -> ModelSource:
    """Find a model by name.

    Parameters
    ----------
    name : str
        "demo"; a Hub id, "@revision" after it or not; or the path of a folder ("./demo" for one of
        that name): a model folder, or a checkpoint in audiocraft's or transformers' format.

    Raises
    ------
    ModelUnavailable
        When there is no such model. The message lists the available names.
    """
    base, _, revision = name.partition("@")
    if base == EMBEDDED:
        source = ModelSource(EMBEDDED, EMBEDDED_REVISION, EMBEDDED_FOLDER)
        if revision not in ("", source.revision):
            raise ModelUnavailable(
                f"this installation embeds {source.identity}, not {name}; "
                f"ask for {EMBEDDED} to use it"
            )
        return source
    if os.path.isdir(name):  # noqa: PTH112  # False for any invalid path
        return _folder_source(Path(name).resolve().name, Path(name).resolve())
    for source in _fetched_models():
        if name in (source.identity, source.name):
            return source
    if _HUB_ID.fullmatch(base):
        commit = find_revision(base, revision, cached_file=AUDIOCRAFT_FILES[0])
        return ModelSource(base, commit, folder=None)
    raise ModelUnavailable(
        f"no model is called {name!r}; use {EMBEDDED}, {', '.join(RELEASED)}, "
        "any other Hub id (owner/name), or the path of a model or checkpoint folder"
    )


def find_prepared(name: str) -> Path | None:
    """Return the folder of a model that is prepared on this machine, without asking the Hub."""
    if name.partition("@")[0] == EMBEDDED:
        return locate(name).prepared
    return next((s.folder for s in _fetched_models() if name in (s.identity, s.name)), None)


def codebook_sizes(names: Sequence[str]) -> dict[str, int]:
    """Return the tokens in a codebook of every model that is prepared here, by name."""
    sizes = {}
    for name in names:
        with contextlib.suppress(ModelUnavailable):  # a damaged one is reported when it is opened
            folder = find_prepared(name)
            if folder is not None:
                sizes[name] = load_config(folder).card
    return sizes


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint in audiocraft's or transformers' format."""
    return _is_audiocraft(folder) or (
        (folder / CONFIG_FILE).is_file() and any((folder / file).is_file() for file in WEIGHTS)
    )


def _is_audiocraft(folder: Path) -> bool:
    return all((folder / file).is_file() for file in AUDIOCRAFT_FILES)


def _is_whole(folder: Path) -> bool:
    """Return whether a folder on this machine has all needed files of a repository."""
    if _is_audiocraft(folder):
        return True
    shards: set[str] = set()
    for index in folder.glob("*.index.json"):
        shards |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    whole = all((folder / shard).is_file() for shard in shards)
    return is_checkpoint(folder) and whole and any((folder / name).is_file() for name in TOKENIZERS)


def _choose_checkpoint_files(files: Sequence[str]) -> Sequence[str]:
    if AUDIOCRAFT_FILES[0] in files:
        return AUDIOCRAFT_FILES
    weights = "*.safetensors" if {*WEIGHTS[:2]} & {*files} else "pytorch_model*.bin"
    return ("*.json", weights, *TOKENIZERS)


def _folder_source(name: str, folder: Path) -> ModelSource:
    if not is_model_folder(folder) and not is_checkpoint(folder):
        raise ModelUnavailable(f"{folder} holds no model: {_describe_other(folder)}")
    return ModelSource(name, content_digest(folder)[:REVISION_DIGITS], folder)


def content_digest(folder: Path) -> str:
    """Return the SHA-256 of a model's weights, configuration and tokenizer, by name."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and _is_content(path, folder)
    )
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(folder, stamps)


def _is_content(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and any(path.match(pattern) for pattern in CONTENT)


def _describe_other(folder: Path) -> str:
    """Return what a folder without a model is, and what to do with it."""
    if (folder / "adapter_config.json").is_file():
        return (
            "it is an adapter of PEFT's (LoRA); merge it into its model (merge_and_unload, then "
            "save_pretrained with the tokenizer) and give the folder that is saved"
        )
    if any(folder.glob("*.th")):
        return (
            "it is a folder of audiocraft's trainer; export its checkpoint with "
            "audiocraft.utils.export (export_lm to state_dict.bin, export_encodec or "
            "export_pretrained_compression_model to compression_state_dict.bin) and give the "
            "folder of the two"
        )
    inside = sorted(path.name for path in folder.glob("*/") if is_checkpoint(path))
    if inside:
        return f"give one of the folders in it: {', '.join(inside[:5])}"
    return (
        f"a model folder has {CONFIG_FILE} and lm.safetensors, a checkpoint has "
        f"{' and '.join(AUDIOCRAFT_FILES)}, or {CONFIG_FILE} and {' or '.join(PART_WEIGHTS)}"
    )


@functools.lru_cache(maxsize=32)
def _digest(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash names and contents; the stamps make a changed folder another cache entry."""
    digest = hashlib.sha256()
    for path, size, _ in stamps:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@functools.cache
def _tell_licence(name: str) -> None:
    if name in RELEASED:
        warnings.warn(
            f"the weights of {name} are licensed {RELEASED_LICENCE}",
            MusicGenLabWarning,
            stacklevel=2,
        )
