"""Where a model's files are: the embedded model, a folder, or a repository on the Hugging Face Hub.

Nothing here imports torch or opens weights, so a wrong name is told before anything slow starts.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

from musicgen_lab.errors import ModelUnavailable, MusicGenLabWarning

EMBEDDED = "demo"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "demo" / "model"
RELEASED = tuple(
    f"facebook/musicgen-{kind}"
    for kind in ("small", "medium", "large", "stereo-small", "stereo-medium", "stereo-large")
)
RELEASED_LICENCE = "CC-BY-NC 4.0 (no commercial use)"
CHECKPOINT_FILES = ("state_dict.bin", "compression_state_dict.bin")
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
        Where the files are; None for a Hub model that is yet to be fetched.
    """

    name: str
    revision: str
    folder: Path | None

    @property
    def identity(self) -> str:
        """The name with its revision: what a resolved request carries."""
        return f"{self.name}@{self.revision}"

    def fetch(self) -> Path:
        """Return the folder with the model's files, downloading them on first use.

        Raises
        ------
        ModelUnavailable
            When the files are neither on this machine nor within reach.
        """
        if self.folder is not None:
            return self.folder
        import huggingface_hub

        _tell_licence(self.name)
        paths = []
        for file in CHECKPOINT_FILES:
            path = huggingface_hub.try_to_load_from_cache(self.name, file, revision=self.revision)
            try:
                if not isinstance(path, str):
                    path = huggingface_hub.hf_hub_download(self.name, file, revision=self.revision)
            except Exception as error:
                raise _unreachable(self.name, error) from error
            paths.append(Path(path))
        return paths[0].parent


def locate(name: str) -> ModelSource:
    """Find a model by name.

    Parameters
    ----------
    name : str
        "demo", the path of a folder with `state_dict.bin` and `compression_state_dict.bin`, or a
        Hub id; the last two may end in "@revision".

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
    if _looks_like_hub_id(base):
        return ModelSource(base, _hub_revision(base, revision), folder=None)
    raise ModelUnavailable(
        f"no model is called {name!r}; use {EMBEDDED}, {', '.join(RELEASED)}, "
        "any other Hub id (owner/name), or the path of a checkpoint folder"
    )


def _looks_like_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(owner and slash and repository) and "/" not in repository and owner not in ".~"


def _folder_source(name: str, folder: Path) -> ModelSource:
    missing = [file for file in CHECKPOINT_FILES if not (folder / file).is_file()]
    if missing:
        raise ModelUnavailable(
            f"{folder} holds no checkpoint: {' and '.join(missing)} not found; "
            f"a checkpoint folder holds {' and '.join(CHECKPOINT_FILES)}"
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
        cached = huggingface_hub.try_to_load_from_cache(
            repository, CHECKPOINT_FILES[0], revision=revision or None
        )
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise _unreachable(repository, error) from error


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
