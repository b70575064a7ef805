"""`prepare`: the model folder of a model, fetched and converted on first use."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from musicgen_lab.errors import ModelUnavailable
from musicgen_lab.machine_lock import machine_lock
from musicgen_lab.models.checksums import verify
from musicgen_lab.models.locate import REVISION_DIGITS, ModelSource

STALE_S = 24 * 3600.0  # an unfinished folder of that age is no longer being written


def prepare(
    source: ModelSource,
    out: Path | None = None,
    *,
    verified: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Path:
    """Return the folder of a model, fetching and converting its checkpoint on first use.

    Only one process on this machine does so at a time; the others wait for it.

    Parameters
    ----------
    source : ModelSource
        As `locate` returns it.
    out : Path, optional
        Where to write it; in the folder of prepared models by default.
    verified : bool
        Compare every byte of a model in the folder of prepared models, and make a damaged one
        again.
    on_stage : callable
        Called with a short description before each stage.

    Raises
    ------
    ModelUnavailable
        When the files cannot be fetched, are damaged, or of an unsupported kind.
    """
    folder = out or source.home
    ready = _find_ready(source, out, verified=verified)
    if ready is not None:
        return ready
    from musicgen_lab.conversion.convert import check_replaceable, convert

    with _sole_preparer(folder):
        ready = _find_ready(source, out, verified=verified)
        if ready is not None:  # by the process that had the lock before
            return ready
        _remove_leftovers(folder)
        check_replaceable(folder)
        on_stage(f"fetching {source.identity}")
        made_of = replace(source, folder=None) if source.folder == source.home else source
        checkpoint = made_of.fetch()
        on_stage(f"converting {source.identity}")
        return convert(checkpoint, folder, name=source.name, revision=source.revision)


def _find_ready(source: ModelSource, out: Path | None, *, verified: bool) -> Path | None:
    """Return the folder of a model that need not be made."""
    folder = source.prepared
    if folder is None or out not in (None, folder):
        return None
    if verified and folder == source.home:
        try:
            verify(folder)
        except ModelUnavailable:
            return None
    return folder


def _remove_leftovers(out: Path) -> None:
    """Remove the unfinished folders of conversions that were killed, of this model or another."""
    from musicgen_lab.conversion.convert import UNFINISHED

    for folder in out.parent.glob(f".*{UNFINISHED}*"):
        other = out.parent / folder.name[1:].rpartition(UNFINISHED)[0]
        if other == out:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with suppress(Timeout, OSError), _sole_preparer(other).acquire(timeout=0):
            if time.time() - folder.stat().st_mtime > STALE_S:  # of no other machine either
                shutil.rmtree(folder, ignore_errors=True)


def _sole_preparer(folder: Path) -> FileLock:
    """Return the lock for fetching and converting a model into a folder."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:REVISION_DIGITS]
    return machine_lock(digest)
