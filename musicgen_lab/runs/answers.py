"""`AnswerStore`: what listeners answered in blind tests, as JSON lines in the run folder.

`answers/<listener>.jsonl` has one answer a line. Lines are only ever appended, and flushed to disk
before the next question is asked. Files of several machines are merged by putting them into one
folder, or by concatenating them: an answer that is there twice counts once.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from musicgen_lab.errors import InvalidRequest, MusicGenLabWarning
from musicgen_lab.formatting import short
from musicgen_lab.runs.atomic_io import (
    UnreadableFile,
    read_file,
    sync_folder,
    unwritable,
)
from musicgen_lab.runs.clip_store import Key, Timestamp

FILE_MAX_BYTES = 100_000_000  # a hundred thousand answers
LISTENER_MAX_CHARACTERS = 60
COMMENT_MAX_CHARACTERS = 1000
RATING_MAX = 100

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Listener = Annotated[
    str,
    StringConstraints(
        max_length=LISTENER_MAX_CHARACTERS,
        pattern=r"^[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?$",
    ),
]
Comment = Annotated[str, StringConstraints(max_length=COMMENT_MAX_CHARACTERS)]
Rating = Annotated[int, Field(ge=0, le=RATING_MAX)]


class _Answer(BaseModel):
    """What every answer has.

    Attributes
    ----------
    id : str
        Of this answer alone.
    listener : str
        Who gave it.
    session : str
        The sitting in which it was given.
    repeats : str or None
        The id of the earlier answer of which the question is a hidden repeat.
    answered_at : str
        ISO 8601.
    comment : str
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    id: Id
    listener: Listener
    session: Id
    repeats: Id | None = None
    answered_at: Timestamp = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    comment: Comment = ""


class PairAnswer(_Answer):
    """Which of two clips a listener prefers; `a` and `b` are their keys, as they were shown."""

    kind: Literal["pair"] = "pair"
    a: Key
    b: Key
    choice: Literal["a", "b", "none", "skip"]


class AbxAnswer(_Answer):
    """Whether a listener takes X for made like A or like B.

    `a`, `b` and `x` are keys of clips, and `x_is` says whose parameters X has. Where X is one of
    the two clips itself, the answer says only whether they can be told apart.
    """

    kind: Literal["abx"] = "abx"
    a: Key
    b: Key
    x: Key
    x_is: Literal["a", "b"]
    choice: Literal["a", "b", "skip"]


class RatingAnswer(_Answer):
    """How a listener rates a clip, from 0 to 100; None where the clip was skipped."""

    kind: Literal["rating"] = "rating"
    clip: Key
    quality: Rating | None
    fit: Rating | None


Answer = PairAnswer | AbxAnswer | RatingAnswer
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
_LISTENER: TypeAdapter[str] = TypeAdapter(Listener)


def check_listener(name: str) -> None:
    """Reject a name that no listener can have.

    Raises
    ------
    InvalidRequest
    """
    try:
        _LISTENER.validate_python(name)
    except ValidationError as error:
        raise InvalidRequest(
            f"listener must be a name of 1 to {LISTENER_MAX_CHARACTERS} characters on one line, "
            f"got {short(name)}",
            field="listener",
            value=name,
        ) from error


class AnswerStore:
    """The answers of a run.

    Parameters
    ----------
    folder : Path
        `answers/` in the run folder; made when the first answer is given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, answer: Answer) -> None:
        """Add an answer, and return once it is on disk.

        Raises
        ------
        RunFolderUnwritable
            When it could not be written.
        """
        line = answer.model_dump_json().encode() + b"\n"
        try:
            self.folder.mkdir(exist_ok=True)
            with self._opened(answer.listener) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                torn = file.read(1) not in (b"", b"\n")  # a process was killed while it wrote
                file.write(b"\n" * torn + line)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def check_writable(self) -> None:
        """Check, before anything is asked, that answers can be written.

        Raises
        ------
        RunFolderUnwritable
            When they cannot.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read(self) -> list[Answer]:
        """Return all answers by time, each once; damaged lines are left out with a warning.

        Names that differ only in case are one listener's, spelt as in the first answer.
        A last line without its end, which a killed process left, is left out silently.
        """
        answers: dict[str, Answer] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for answer in self._read_file(path):
                answers.setdefault(answer.id, answer)
        names: dict[str, str] = {}
        return [
            answer.model_copy(
                update={"listener": names.setdefault(answer.listener.casefold(), answer.listener)}
            )
            for answer in sorted(answers.values(), key=lambda one: (one.answered_at, one.id))
        ]

    def copy_to(self, other: AnswerStore) -> None:
        """Add all answers that another store lacks to it, as `ClipStore.copy_to` does the clips.

        Raises
        ------
        RunFolderUnwritable
            When the other one cannot be written.
        """
        known = {answer.id for answer in other.read()}
        for answer in self.read():
            if answer.id not in known:
                other.append(answer)

    def _opened(self, listener: str) -> BinaryIO:
        """Open a listener's file for appending; names that are spelt alike share one."""
        name = re.sub(r"[\W_]+", "-", listener.lower()).strip("-") or "listener"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(self.folder / f"{name}.jsonl", flags, 0o666), "r+b")

    def _read_file(self, path: Path) -> Iterator[Answer]:
        """Yield the answers in a file."""
        try:
            content = read_file(path, root=self.folder, max_bytes=FILE_MAX_BYTES)
        except (OSError, UnreadableFile) as error:
            warnings.warn(f"{path} is not read: {error}", MusicGenLabWarning, stacklevel=3)
            return
        *lines, rest = content.split(b"\n")
        damaged = 0
        for line in (*lines, rest):
            if not line.strip():
                continue
            try:
                yield _ANSWER.validate_json(line)
            except ValidationError:
                damaged += line is not rest
        if damaged:
            warnings.warn(
                f"{path} has {damaged} damaged line{'s' * (damaged > 1)}, which "
                f"{'are' if damaged > 1 else 'is'} not counted; the other answers are kept",
                MusicGenLabWarning,
                stacklevel=3,
            )
