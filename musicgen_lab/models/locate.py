"""Where a model's files are: the embedded model, a folder, or a repository on the Hugging Face Hub.

Nothing here imports torch or opens weights, so a wrong name is reported at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicgen_lab.errors import ModelUnavailable, MusicGenLabWarning
from musicgen_lab.models.config import CONFIG_FILE, ModelConfig, is_model_folder, load_config
from musicgen_lab.models.hub import download, find_revision

EMBEDDED = "demo"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
RELEASED = tuple(
    f"facebook/musicgen-{kind}"
    for kind in ("small", "medium", "large", "stereo-small", "stereo-medium", "stereo-large")
)
RELEASED_LICENCE = "CC-BY-NC 4.0 (no commercial use)"
MODELS_HOME = "MUSICGEN_LAB_MODELS"
AUDIOCRAFT_FILES = ("state_dict.bin", "compression_state_dict.bin")
TRANSFORMERS_FILES = ("*.json", "*.safetensors", "spiece.model")
REVISION_DIGITS = 12


@dataclass(frozen=True)
class ModelSource:
    """A model and the revision of its weights.

    Attributes
    ----------
    name : str
        "demo", a Hub id such as "facebook/musicgen-small", or the name of a folder.
    revision : str
        The Hub's commit, or the start of the SHA-256 of a folder's content.
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
            self.name, self.revision, is_whole=is_checkpoint, choose=_choose_checkpoint_files
        )


def models_home() -> Path:
    """Return the folder of prepared models: MUSICGEN_LAB_MODELS, or one in the user's cache."""
    chosen = os.environ.get(MODELS_HOME)
    if chosen:
        return Path(chosen)
    import platformdirs  # not in the web image of the service, which is told the folder

    return platformdirs.user_cache_path("musicgen-lab") / "models"


def prepared_models() -> list[ModelSource]:
    """Return the embedded model and every model prepared on this machine."""
    return [locate(EMBEDDED), *_fetched_models()]


def _fetched_models() -> list[ModelSource]:
    """Return the models in the folder of prepared models."""
    sources = []
    for folder in sorted(models_home().glob("*@*")) if models_home().is_dir() else []:
        if is_model_folder(folder):
            name, _, revision = folder.name.rpartition("@")
            sources.append(ModelSource(name.replace("--", "/"), revision, folder))
    return sources


def locate(name: str) -> ModelSource:
    """Find a model by name.

    Parameters
    ----------
    name : str
        "demo"; a Hub id, "@revision" after it or not; or the path of a folder: a model folder, or
        a checkpoint in audiocraft's or transformers' format.

    Raises
    ------
    ModelUnavailable
        When there is no such model. The message lists the available names.
    """
    if Path(name).is_dir():
        return _folder_source(Path(name).resolve().name, Path(name).resolve())
    base, _, revision = name.partition("@")
    if base == EMBEDDED:
        source = _folder_source(EMBEDDED, EMBEDDED_FOLDER)
        if revision not in ("", source.revision):
            raise ModelUnavailable(
                f"this installation embeds {source.identity}, not {name}; "
                f"ask for {EMBEDDED} to use it"
            )
        return source
    for source in _fetched_models():
        if name in (source.identity, source.name):
            return source
    if _looks_like_hub_id(base):
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


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder has a checkpoint in audiocraft's or transformers' format."""
    in_audiocraft = all((folder / file).is_file() for file in AUDIOCRAFT_FILES)
    weights = any(folder.glob("*.safetensors"))
    return in_audiocraft or ((folder / CONFIG_FILE).is_file() and weights)


def _choose_checkpoint_files(files: Sequence[str]) -> Sequence[str]:
    return AUDIOCRAFT_FILES if AUDIOCRAFT_FILES[0] in files else TRANSFORMERS_FILES


def _looks_like_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(owner and slash and repository) and "/" not in repository and owner not in ".~"


def _folder_source(name: str, folder: Path) -> ModelSource:
    if not is_model_folder(folder) and not is_checkpoint(folder):
        raise ModelUnavailable(
            f"{folder} holds no model: a model folder has {CONFIG_FILE} and lm.safetensors, "
            f"a checkpoint has {' and '.join(AUDIOCRAFT_FILES)}, or {CONFIG_FILE} and safetensors"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return ModelSource(name, _content_digest(folder, stamps)[:REVISION_DIGITS], folder)


@functools.lru_cache(maxsize=32)
def _content_digest(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
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
