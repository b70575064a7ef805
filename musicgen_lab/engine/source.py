"""Where a model's files are: the embedded model, a folder, or a repository on the Hugging Face Hub.

Nothing here imports torch or opens weights, so a wrong name is told before anything slow starts.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from musicgen_lab.engine.config import CONFIG_FILE, ModelConfig, is_model_folder, load_config
from musicgen_lab.errors import ModelUnavailable, MusicGenLabWarning

EMBEDDED = "demo"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "demo" / "model"
RELEASED = tuple(
    f"facebook/musicgen-{kind}"
    for kind in ("small", "medium", "large", "stereo-small", "stereo-medium", "stereo-large")
)
RELEASED_LICENCE = "CC-BY-NC 4.0 (no commercial use)"
MODELS_HOME = "MUSICGEN_LAB_MODELS"
AUDIOCRAFT_FILES = ("state_dict.bin", "compression_state_dict.bin")
TRANSFORMERS_FILES = ("*.json", "*.safetensors", "spiece.model")
REVISION_DIGITS = 12
HUB_TIMEOUT_S = 10.0


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
        """The name with its revision: what a resolved request carries."""
        return f"{self.name}@{self.revision}"

    @property
    def prepared(self) -> Path | None:
        """The model folder that the engine can open, or None where it is yet to be prepared."""
        for folder in (self.folder, self._home):
            if folder is not None and is_model_folder(folder):
                return folder
        return None

    @property
    def _home(self) -> Path:
        return models_home() / self.identity.replace("/", "--")

    def config(self) -> ModelConfig | None:
        """Return what the model is like, or None where it is yet to be prepared."""
        return load_config(self.prepared) if self.prepared is not None else None

    def prepare(self, out: Path | None = None) -> Path:
        """Return the model folder, fetching and converting the checkpoint on first use.

        Parameters
        ----------
        out : Path, optional
            Where to write it; in the folder of prepared models by default.

        Raises
        ------
        ModelUnavailable
            When the files are out of reach, damaged, or of a kind that is not served.
        """
        if self.prepared is not None and out in (None, self.prepared):
            return self.prepared
        from musicgen_lab.engine.convert import prepare

        checkpoint = self.fetch()
        return prepare(checkpoint, out or self._home, name=self.name, revision=self.revision)

    def fetch(self) -> Path:
        """Return the folder with the model's own files, downloading them on first use.

        Raises
        ------
        ModelUnavailable
            When the files are neither on this machine nor within reach.
        """
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        _tell_licence(self.name)
        patterns: tuple[str, ...] = AUDIOCRAFT_FILES
        for offline in (True, False):
            try:
                if not offline and AUDIOCRAFT_FILES[0] not in _hub_files(self.name, self.revision):
                    patterns = TRANSFORMERS_FILES
                folder = Path(
                    snapshot_download(
                        self.name,
                        revision=self.revision,
                        allow_patterns=list(patterns),
                        local_files_only=offline,
                    )
                )
            except Exception as error:
                if not offline:
                    raise _unreachable(self.name, error) from error
            else:
                if not offline or is_checkpoint(folder):
                    return folder
        raise AssertionError("the loop returns or raises")


def models_home() -> Path:
    """Return the folder of prepared models: MUSICGEN_LAB_MODELS, or one in the user's cache."""
    chosen = os.environ.get(MODELS_HOME)
    return Path(chosen) if chosen else platformdirs.user_cache_path("musicgen-lab") / "models"


def prepared_models() -> list[ModelSource]:
    """Return the embedded model and every model prepared on this machine."""
    folders = sorted(models_home().glob("*@*")) if models_home().is_dir() else []
    sources = [locate(EMBEDDED)]
    for folder in folders:
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
        When there is no such model. The message says which names there are.
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
    for source in prepared_models()[1:]:
        if name in (source.identity, source.name):
            return source
    if _looks_like_hub_id(base):
        return ModelSource(base, _hub_revision(base, revision), folder=None)
    raise ModelUnavailable(
        f"no model is called {name!r}; use {EMBEDDED}, {', '.join(RELEASED)}, "
        "any other Hub id (owner/name), or the path of a model or checkpoint folder"
    )


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint in audiocraft's or transformers' format."""
    in_audiocraft = all((folder / file).is_file() for file in AUDIOCRAFT_FILES)
    weights = any(folder.glob("*.safetensors"))
    return in_audiocraft or ((folder / CONFIG_FILE).is_file() and weights)


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


def _hub_revision(repository: str, revision: str) -> str:
    """Return the commit that a Hub name stands for now, or the one on this machine if offline."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelUnavailable(
            f"{repository} lies on the Hugging Face Hub, which needs the local extra: "
            "pip install 'musicgen-lab[local]'"
        )
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=revision or None, timeout=HUB_TIMEOUT_S
        )
        return str(info.sha)
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise ModelUnavailable(
            f"the Hub has no model {repository}, or it is private; check the name, "
            "or log in with `hf auth login`"
        ) from error
    except Exception as error:
        for file in (AUDIOCRAFT_FILES[0], CONFIG_FILE):
            cached = huggingface_hub.try_to_load_from_cache(
                repository, file, revision=revision or None
            )
            if isinstance(cached, str):
                return Path(cached).parent.name
        raise _unreachable(repository, error) from error


def _hub_files(repository: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    return HfApi().list_repo_files(repository, revision=revision)


def _unreachable(name: str, error: Exception) -> ModelUnavailable:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelUnavailable(
        f"{name} is not on this machine and the Hugging Face Hub could not be reached "
        f"({reason[:120]}); connect once to fetch it, or give the path of a checkpoint folder"
    )


@functools.cache
def _tell_licence(name: str) -> None:
    if name in RELEASED:
        warnings.warn(
            f"the weights of {name} are licensed {RELEASED_LICENCE}",
            MusicGenLabWarning,
            stacklevel=2,
        )
