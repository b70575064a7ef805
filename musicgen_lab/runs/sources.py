"""Sources of clips, from sound files and from the clips of run folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from musicgen_lab.errors import InvalidRequest, RunFolderError
from musicgen_lab.runs.atomic_io import read_file
from musicgen_lab.runs.run_folder import RunFolder
from musicgen_lab.source import DIGEST, SOURCE_MAX_BYTES, Source


def open_source(given: str | Path | Source) -> Source:
    """Return the source at a path, or that is a clip of a run folder.

    Parameters
    ----------
    given : str or Path or Source
        The path of a WAV, FLAC, MP3 or Ogg file; or "RUN#KEY", a run folder and the key of one of
        its clips, or the first characters of it. The digest of a source is returned as one whose
        content is not known.

    Returns
    -------
    Source
        Of a clip, its codes where the folder has them, and its sound where it does not.

    Raises
    ------
    InvalidRequest
        When there is no such file or clip, or it cannot be begun with.

    Examples
    --------
    >>> import musicgen_lab as lab
    >>> key = lab.Results.open("runs/guitar").frame["key"][0]
    >>> lab.open_source(f"runs/guitar#{key[:8]}").duration_s
    1.0
    """
    if isinstance(given, Source):
        return given
    text = str(given)
    if DIGEST.fullmatch(text):
        return Source(text)
    try:
        path = Path(text).expanduser()
        folder, separator, key = str(path).rpartition("#")
        if separator and not os.path.exists(path):  # noqa: PTH110  # False for any invalid path
            return RunFolder.started(folder).store.source(key)
        real = path.resolve(strict=True)
        content = read_file(real, root=real.parent, max_bytes=SOURCE_MAX_BYTES)
    except InvalidRequest:
        raise
    except (KeyError, RunFolderError) as error:
        raise _cannot_read(text, str(error.args[0])) from None
    except (OSError, RuntimeError, ValueError) as error:  # of a path that no system has, too
        raise _cannot_read(text, getattr(error, "strerror", None) or str(error)) from None
    return Source.of_bytes(content, path.name)


def map_values(change: Callable[[Any], Any], design: Any) -> Any:
    """Return a design of a sweep with a function of every value, at any depth, in its place."""
    if isinstance(design, Mapping):
        return {name: map_values(change, value) for name, value in design.items()}
    if isinstance(design, list):
        return [map_values(change, value) for value in design]
    return change(design)


def _cannot_read(given: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot begin with {given}: {reason}; give a sound file, or RUN#KEY for a clip of a run",
        field="begin_with",
        value=given,
    )
