"""Files from the Hugging Face Hub, each repository at one commit.

Importing this imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote

from musicgen_lab.errors import ModelUnavailable

REVISION_TIMEOUT_S = 10.0
COMMIT = re.compile(r"[0-9a-f]{40}")
PART_CONFIG = "config.json"
PART_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference
TOKENIZERS = ("spiece.model", "tokenizer.json")
PINNED = {  # what the released checkpoints name without a revision
    "t5-base": "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1",
    "facebook/encodec_32khz": "d0c45384f6c44db055f78200cfdcb9c1c8706727",
}


def find_revision(repository: str, revision: str = "", *, cached_file: str) -> str:
    """Return the commit of a branch or tag now, or the one on this machine if offline.

    Parameters
    ----------
    repository : str
        "owner/name".
    revision : str
        A branch, a tag or a commit; empty for the main branch. A full commit is returned unchanged;
        whether it exists is only known when it is fetched.
    cached_file : str
        A file whose presence shows that the repository is on this machine.

    Raises
    ------
    ModelUnavailable
        When there is no such repository, or it cannot be reached.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ModelUnavailable(
            f"{repository} lies on the Hugging Face Hub, which needs the local extra: "
            "pip install 'musicgen-lab[local]'"
        )
    if COMMIT.fullmatch(revision):
        return revision
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=revision or None, timeout=REVISION_TIMEOUT_S
        )
        return str(info.sha)
    except Exception as error:
        cached = huggingface_hub.try_to_load_from_cache(
            repository, cached_file, revision=revision or None
        )
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise explain(repository, revision, error) from error


def download(
    repository: str,
    revision: str,
    *,
    is_whole: Callable[[Path], bool],
    choose: Callable[[Sequence[str]], Sequence[str]],
) -> Path:
    """Return the folder with a repository's files, from this machine if they are complete.

    Parameters
    ----------
    repository : str
    revision : str
        A commit.
    is_whole : callable
        Returns whether a folder on this machine has all needed files.
    choose : callable
        Selects the needed ones from the names of the repository's files, as patterns.

    Raises
    ------
    ModelUnavailable
        When the files are not on this machine and cannot be fetched.
    """
    from huggingface_hub import HfApi, snapshot_download

    with contextlib.suppress(Exception):  # nothing of it is here
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        if is_whole(folder):
            return folder
    try:
        # `list_repo_files` would repeat a request that fails for 23 s, with a warning each time.
        info = HfApi().model_info(repository, revision=revision, timeout=REVISION_TIMEOUT_S)
        patterns = list(choose([file.rfilename for file in info.siblings or []]))
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise explain(repository, revision, error) from error


def download_part(name: str, *, own_folder: Path, tokenizer: bool = False) -> tuple[Path, str]:
    """Return the folder of a text encoder or a codec that a checkpoint only names, and its commit.

    Only those in `PINNED` are fetched, at their commits: a checkpoint may name anything.

    Parameters
    ----------
    name : str
        On the Hub.
    own_folder : Path
        The folder of the checkpoint in which another one would be used.
    tokenizer : bool
        Whether its tokenizer is needed too.

    Raises
    ------
    ModelUnavailable
        When the name is not known, or the files are out of reach.
    """
    if name not in PINNED:
        raise ModelUnavailable(
            f"the checkpoint names {name[:100]!r}, and only {' and '.join(PINNED)} are fetched by "
            f"themselves; if you trust it, fetch it first: `hf download {quote(name[:100])} "
            f"--local-dir {quote(str(own_folder))}`"
        )
    revision = PINNED[name]

    def is_whole(folder: Path) -> bool:
        has_tokenizer = any((folder / file).is_file() for file in TOKENIZERS)
        has_config = (folder / PART_CONFIG).is_file()
        return has_config and bool(find_weights(folder)) and (has_tokenizer or not tokenizer)

    def choose(files: Sequence[str]) -> list[str]:
        weights = next((file for file in PART_WEIGHTS if file in files), PART_WEIGHTS[0])
        return [weights, "*.json", TOKENIZERS[0]]

    return download(name, revision, is_whole=is_whole, choose=choose), revision


def find_weights(folder: Path) -> list[Path]:
    """Return the file with the weights of a text encoder or a codec, in a list; empty for none."""
    return [folder / file for file in PART_WEIGHTS if (folder / file).is_file()][:1]


def explain(repository: str, revision: str, error: Exception) -> ModelUnavailable:
    """Translate an error of the Hub's client into one sentence on what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return ModelUnavailable(
            f"the Hub's {repository} has no revision {revision}; its page lists the commits"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelUnavailable(
            f"the Hub has no model {repository}, or it is private; check the name, "
            "or log in with `hf auth login`"
        )
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelUnavailable(
        f"{repository} is not on this machine and the Hugging Face Hub could not be reached "
        f"({reason[:120]}); connect once to fetch it, or give the path of a checkpoint folder"
    )
